"""`leaf run`: run named experiments with `dvc exp run`."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from leaf import params
from leaf.check import check
from leaf.errors import LeafError
from leaf.experiments import dvc_settings, read_experiments, row_settings
from leaf.store import replacing

# `dvc exp run` without its warning for each missing output
_DVC = """import logging, sys
from dvc.cli import main
logging.getLogger("dvc_data.index.checkout").setLevel("ERROR")
sys.exit(main(["exp", "run", *sys.argv[1:]]))"""


def run_experiments(names: Sequence[str], settings: Mapping[str, Any], force: bool = False, temp: bool = False) -> int:
    """Run rows of experiments.yaml one after another; `settings` override those of the rows.

    `force` replaces an experiment of the same name after the new run succeeds. `temp` runs each row in a temporary
    folder. Returns 0, or DVC's exit status if a run fails; later rows are then not run.
    """
    rows = {}
    for name in names:
        row, resets = row_settings(name)
        rows[name] = {**row, **settings}
        for line in resets:
            print(line, file=sys.stderr)
    return run_rows(rows, force, temp)


def require_commit() -> None:
    """Raise LeafError if the git repository has no commit, which DVC experiments require."""
    done = subprocess.run(["git", "rev-parse", "--verify", "--quiet", "HEAD"], check=False, capture_output=True)
    if done.returncode:
        raise LeafError("git: no commit yet. Run `git add -A && git commit -m 'Add the classifier'`.")


def run_rows(rows: Mapping[str, Mapping[str, Any]], force: bool = False, temp: bool = False) -> int:
    """Run experiments like `run_experiments`. `rows` maps each name to its settings.

    All rows are checked before DVC deletes any output. If a run in the workspace fails, parameters, metrics and outputs
    are restored. An experiment that is being replaced is temporarily renamed to NAME-before.
    """
    require_commit()
    taken = _existing() & rows.keys()
    if taken and not force:
        raise LeafError(
            f"{min(taken)}: an experiment with this name exists. Replace it with --force, or list experiments "
            "with `dvc exp show`."
        )
    seen: dict[str, list[str]] = {}
    checked = {name: check(row, name, seen) for name, row in rows.items()}
    print(next(iter(checked.values()))[1] if checked else "")
    for name, (row, _) in checked.items():
        if name in taken:
            _experiment("rename", "--force", name, f"{name}-before")
        # DVC can be installed in another environment, for example by pipx
        command = [sys.executable, "-c", _DVC] if find_spec("dvc") else ["dvc", "exp", "run"]
        command += ["--name", name, *(["--temp"] if temp else [])]
        for setting in dvc_settings(row):
            command += ["--set-param", setting]
        before = _workspace()
        status = 1
        try:
            status = subprocess.run(command, check=False).returncode
        finally:
            if name in taken:
                _experiment(*(("rename", f"{name}-before", name) if status else ("remove", f"{name}-before")))
        if status:
            if not temp:
                _restore(before)
            return status
    return 0


def _experiment(*words: str) -> None:
    subprocess.run(["dvc", "exp", *words], check=False, capture_output=True)


def _workspace() -> dict[Path, bytes]:
    """Return the contents of the files that DVC rewrites during a run, except cached outputs."""
    paths = [Path(params.PARAMS_FILE), Path("dvc.lock"), *Path("metrics").glob("*.json")]
    return {path: path.read_bytes() for path in paths if path.is_file()}


def _restore(before: Mapping[Path, bytes]) -> None:
    for path, content in before.items():
        with replacing(path) as partial:
            partial.write_bytes(content)
    subprocess.run(["dvc", "checkout", "--quiet"], check=False, capture_output=True)
    print("run failed: params.yaml, metrics and outputs were restored", file=sys.stderr)


def list_experiments() -> str:
    """Return the name and description of each row, one per line."""
    rows = read_experiments()
    width = max(map(len, rows), default=0)
    return "\n".join(f"{name.ljust(width)}  {row.why}" for name, row in rows.items())


def _existing() -> set[str]:
    listed = subprocess.run(["dvc", "exp", "list", "--name-only"], check=False, capture_output=True, text=True)
    return set(listed.stdout.split())
