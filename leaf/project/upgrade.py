"""`leaf upgrade`: update a project's files to the installed version of leaf."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap

from leaf import __version__, params
from leaf.errors import LeafError
from leaf.project.init import FOLDERS
from leaf.project.pipeline import (
    CODE_FILE,
    TEMPLATE,
    changed_code,
    installed_pipeline,
    load_yaml,
    with_downstream,
    write_code_file,
    write_yaml,
)
from leaf.store import read_yaml

# Renamed keys of params.yaml, as old: new; keys in a group are GROUP.KEY.
RENAMED: dict[str, str] = {}


def upgrade_project(folder: Path) -> list[str]:
    """Update code.json, leaf's stages in dvc.yaml and the keys of params.yaml; return a line per change.

    Comments, order and values in params.yaml are kept, as are other stages, plots and metrics in dvc.yaml.

    Raises LeafError and writes nothing if `folder` has no project or a file is damaged.
    """
    if not (folder / CODE_FILE).exists():
        raise LeafError(
            f"{folder / CODE_FILE}: no such file. `leaf upgrade` requires a project created by `leaf init`."
        )
    pipeline, stages = _upgraded_pipeline(folder / params.PIPELINE_FILE)
    values, lines = _upgraded_params(folder / params.PARAMS_FILE)
    code = changed_code(folder)
    lines += [f"{params.PIPELINE_FILE}: {name}: updated" for name in stages]
    lines += [f"{CODE_FILE}: {name}: code changed" for name in code]
    write_yaml(pipeline, folder / params.PIPELINE_FILE)
    write_yaml(values, folder / params.PARAMS_FILE)
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_code_file(folder)
    changed = {*code, *stages}
    rerun = with_downstream(pipeline["stages"], changed)
    after = [name for name in rerun if name not in changed]
    lines.append(
        f"leaf {__version__}: `dvc repro` reruns {', '.join(name for name in rerun if name in changed) or 'no stage'}"
        + (f", and {', '.join(after)} if {'its' if len(after) == 1 else 'their'} inputs change" if after else "")
    )
    return lines


def _load(path: Path) -> Any:
    read_yaml(path)  # reports damage as a one-line error
    value = load_yaml(path)
    if not isinstance(value, CommentedMap):
        raise LeafError(f"{path}: not a mapping. Restore it with `git checkout {path}`.")
    return value


def _upgraded_pipeline(path: Path) -> tuple[Any, list[str]]:
    """Return dvc.yaml with the installed stages, and the names of the stages that changed."""
    pipeline, template = _load(path), installed_pipeline()
    if not isinstance(pipeline.get("stages"), CommentedMap):
        raise LeafError(f"{path}: stages: missing or not a mapping. Restore it with `git checkout {path}`.")
    changed = []
    for name, stage in template["stages"].items():
        if pipeline["stages"].get(name) != stage:
            pipeline["stages"][name] = stage
            changed.append(name)
    return pipeline, changed


def _upgraded_params(path: Path) -> tuple[Any, list[str]]:
    """Return params.yaml with the installed schema's keys, and a line per renamed, removed or added key."""
    values = _load(path)
    template = load_yaml(TEMPLATE / params.PARAMS_FILE)
    lines = [f"{path.name}: {old}: renamed to {new}" for old, new in RENAMED.items() if _rename(values, old, new)]
    lines += _match_keys(values, template, f"{path.name}: ")
    params.validate(values, str(path))
    return values, lines


def _rename(values: CommentedMap, old: str, new: str) -> bool:
    """Rename a key in place, keeping its value and comment. Return False if it is absent."""
    group, _, key = old.rpartition(".")
    inner = values.get(group) if group else values
    if not isinstance(inner, CommentedMap) or key not in inner:
        return False
    name = new.rpartition(".")[2]
    position, comment = list(inner).index(key), inner.ca.items.pop(key, None)
    inner.insert(position, name, inner.pop(key))
    if comment:
        inner.ca.items[name] = comment
    return True


def _match_keys(values: CommentedMap, template: CommentedMap, prefix: str) -> list[str]:
    """Remove unknown keys from `values`, add missing ones in the template's order, and return a line per change."""
    changes = []
    for key in [key for key in values if key not in template]:
        del values[key]
        changes.append(f"{prefix}{key}: removed")
    position = 0
    for key, default in template.items():
        if key not in values:
            values.insert(position, key, default, comment=_comment(template, key))
            shown = "nested keys" if isinstance(default, Mapping) else f"{default}"
            changes.append(f"{prefix}{key}: added ({shown})")
        elif isinstance(default, CommentedMap) and isinstance(values[key], CommentedMap):
            changes += _match_keys(values[key], default, f"{prefix}{key}.")
        position = list(values).index(key) + 1
    return changes


def _comment(template: CommentedMap, key: str) -> str | None:
    tokens = template.ca.items.get(key)
    text = tokens[2].value if tokens and tokens[2] else ""
    return text.partition("\n")[0].lstrip("# ") or None
