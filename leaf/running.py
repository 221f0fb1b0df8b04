"""`leaf run`: rows of experiments.yaml through `dvc exp run`."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from leaf import params
from leaf.errors import LeafError
from leaf.experiments import experiment, parse_settings, read_experiments, with_settings

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_WORDS = {"null", "true", "false", "inf", "nan"}  # Hydra's own, if not in quotes


def run_experiments(names: Sequence[str], settings: Sequence[str], force: bool = False, aside: bool = False) -> int:
    """Run the rows `names` one after another, `settings` (`key=value`) laid over each; all are checked first.

    `force` replaces experiments of the same name; `aside` runs each in a folder of its own (`--temp`). Returns the
    first exit status of dvc that is not 0, after which no further row is run.
    """
    values = yaml.safe_load(Path(params.PARAMS_FILE).read_text(encoding="utf-8"))
    over = parse_settings(settings)
    rows = {name: {**experiment(name).set, **over} for name in names}
    for name, row in rows.items():
        with_settings(values, row, name)
    return run_rows(rows, force, aside)


def run_rows(rows: Mapping[str, Mapping[str, Any]], force: bool = False, aside: bool = False) -> int:
    """Run experiments, name to settings, one after another; arguments and exit status as of `run_experiments`."""
    taken = _existing() & rows.keys()
    if taken and not force:
        raise LeafError(
            f"{min(taken)}: an experiment of this name exists; --force replaces it, `dvc exp show` shows it"
        )
    for name, row in rows.items():
        if name in taken:
            subprocess.run(["dvc", "exp", "remove", "--quiet", name], check=False, capture_output=True)
        command = ["dvc", "exp", "run", "--name", name, *dvc_settings(row)]
        status = subprocess.run(command + ["--temp"] * aside, check=False).returncode
        if status:
            return status
    return 0


def dvc_settings(settings: Mapping[str, Any]) -> list[str]:
    """The settings as arguments of `dvc exp run`, quoted for its override grammar (Hydra's), not for a shell."""
    arguments = []
    for key, value in settings.items():
        arguments += ["--set-param", f"{key}={_hydra(value)}"]
    return arguments


def list_experiments() -> str:
    """Every row with its reason, one line each."""
    rows = read_experiments()
    width = max(map(len, rows), default=0)
    return "\n".join(f"{name.ljust(width)}  {row.why}" for name, row in rows.items())


def _hydra(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_hydra, value))}]"
    if isinstance(value, str) and (value.lower() in _WORDS or not _PLAIN.fullmatch(value)):
        return "'" + re.sub(r"(\\*)('|\$\{|\Z)", _escape, value) + "'"
    return str(value)


def _escape(found: re.Match[str]) -> str:
    """Quotes and `${` (an interpolation, which could read the environment) are escaped, and backslashes before them."""
    return found[1] * 2 + (f"\\{found[2]}" if found[2] else "")


def _existing() -> set[str]:
    listed = subprocess.run(["dvc", "exp", "list", "--name-only"], check=False, capture_output=True, text=True)
    return set(listed.stdout.split())
