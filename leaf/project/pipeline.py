"""The files of a project whose stages run leaf's installed code: dvc.yaml, code.json and the template."""

import hashlib
import subprocess
from collections.abc import Collection, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import leaf
from leaf.errors import LeafError
from leaf.store import read_json, read_yaml, replacing, write_json

CODE_FILE = "code.json"
TEMPLATE = Path(__file__).parent / "template"
PIPELINE = TEMPLATE / "pipeline.yaml"  # not named dvc.yaml, because DVC runs every file of that name
CODE_ROOT = Path(leaf.__file__).parents[1]
_CODE = ("leaf/", "stages/")


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def load_yaml(path: Path) -> Any:
    """Load a YAML file. Its comments, order and quotes are kept by `write_yaml`."""
    return _round_trip().load(path.read_text(encoding="utf-8"))


def write_yaml(value: Any, path: Path) -> None:
    """Write a value from `load_yaml` as YAML, keeping its comments, order and quotes."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        _round_trip().dump(value, file)


def installed_pipeline() -> Any:
    """Return dvc.yaml for a project outside leaf's repository.

    DVC cannot track code in site-packages, so each stage depends on its key in code.json instead.
    """
    pipeline = load_yaml(PIPELINE)
    for name, stage in pipeline["stages"].items():
        stage["deps"] = [dep for dep in stage["deps"] if not dep.startswith(_CODE)]
        if not stage["deps"]:
            del stage["deps"]
        stage["params"].append({CODE_FILE: [name]})
    return pipeline


def code_hashes() -> dict[str, str]:
    """Return, for each stage, a hash of the installed code files that leaf's own dvc.yaml lists in `deps`."""
    stages = read_yaml(PIPELINE)["stages"]
    return {name: _hash_code([dep for dep in stage["deps"] if dep.startswith(_CODE)]) for name, stage in stages.items()}


def _hash_code(paths: Collection[str]) -> str:
    digest = hashlib.sha256()
    for path in sorted(CODE_ROOT / path for path in paths):
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(f"{file.relative_to(CODE_ROOT).as_posix()}\0{file.stat().st_size}\0".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def write_code_file(folder: Path) -> None:
    """Write code.json: a hash per stage, and the version of leaf that wrote it."""
    write_json({**code_hashes(), "leaf": leaf.__version__}, folder / CODE_FILE)


def changed_code(folder: Path) -> list[str]:
    """Return the stages whose installed code differs from code.json, or all stages if code.json is damaged."""
    recorded = {}
    with suppress(LeafError):
        recorded = read_json(folder / CODE_FILE, {})
    return [name for name, value in code_hashes().items() if recorded.get(name) != value]


def with_downstream(stages: Mapping[str, Any], changed: Collection[str]) -> list[str]:
    """Return `changed` and every stage that depends on their outputs, in pipeline order."""
    rerun: set[str] = set()
    outputs: set[str] = set()
    for name, stage in stages.items():  # dvc.yaml lists producers first
        if name in changed or outputs & {str(dep) for dep in stage.get("deps", [])}:
            rerun.add(name)
            outputs |= {str(out if isinstance(out, str) else next(iter(out))) for out in stage.get("outs", [])}
    return [name for name in stages if name in rerun]


def describe_version() -> str:
    """Return `leaf VERSION (COMMIT)`, with the commit from git in a checkout, otherwise from the build."""
    commit = None
    if (CODE_ROOT / ".git").exists():
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, cwd=CODE_ROOT, capture_output=True, text=True, check=False).stdout.strip()
    with suppress(ImportError, AttributeError):
        commit = commit or import_module("leaf._version").__commit_id__
    return f"leaf {leaf.__version__} ({(commit or 'unknown').removeprefix('g')})"
