"""Plan a job's experiments from rows, settings and sweeps; read and write the records of submitted jobs."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from leaf import params
from leaf.errors import LeafError
from leaf.experiments import dvc_settings, parse_settings, read_experiments, row_settings, with_settings
from leaf.store import read_json, read_yaml, write_json

MOST = 1000  # maximum number of experiments in one job
FOLDER = Path(".dvc") / "tmp" / "leaf" / "records"
ENDED = ("done", "failed", "cancelled", "stopped", "lost")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_FILE_KEYS = ("dataset", "labels", "masks", "unlabelled", "weights")  # parameters that can be paths


@dataclass(frozen=True)
class Planned:
    """An experiment's name and its settings: `key=value` strings, as for `dvc exp run -S`."""

    name: str
    settings: tuple[str, ...]


def plan(
    rows: Sequence[str],
    settings: Sequence[str],
    every: bool = False,
    name: str | None = None,
    look: Callable[[Mapping[str, Any], str], Mapping[str, Any]] = lambda setting, _: setting,
) -> list[Planned]:
    """Return the experiments: each row combined with each combination of settings.

    Args:
        rows: names in experiments.yaml. Without rows, there is one experiment per combination.
        settings: `key=value`, or `key=value,value` for a sweep.
        every: use every row of experiments.yaml.
        name: name of a single experiment, or prefix for several.
        look: function that checks an experiment's settings and returns the settings to use. Its second argument is the
            row, for errors.

    Raises:
        LeafError: if a row is unknown, a setting is invalid, or a name is invalid or used twice.
    """
    if every and rows:
        raise LeafError("submit: rows and --all are mutually exclusive. Remove one of them.")
    table = {row: row_settings(row)[0] for row in (read_experiments() if every else rows)}
    values = read_yaml(params.PARAMS_FILE) or {}
    planned = []
    for row, chosen in (table or {"": {}}).items():
        for combination in sweep(settings):
            setting = {**chosen, **parse_settings(combination)}
            planned.append(_planned(row, combination, look(setting, row or "-S"), values))
    if name is not None:
        alone = len(planned) == 1
        planned = [replace(one, name=check_name(name if alone else f"{name}-{one.name}")) for one in planned]
    names = [experiment.name for experiment in planned]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise LeafError(
            f"{twice}: two experiments have this name. Vary the settings, or submit them one by one with --name."
        )
    if len(planned) > MOST:
        raise LeafError(f"submit: {len(planned)} experiments; valid: at most {MOST} in one job")
    return planned


def sweep(settings: Iterable[str]) -> list[tuple[str, ...]]:
    """Return all combinations of values: `a=1,2` and `b=3,4` yield four. Commas in brackets or quotes do not split."""
    choices = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", key):
            raise LeafError(f"-S {setting}: not a setting; valid: key=value, or key=value,value for a sweep")
        choices.append([f"{key}={part}" for part in split_commas(value)])
    return list(product(*choices))


def split_commas(value: str) -> list[str]:
    """Split `value` at the commas outside brackets and quotes."""
    parts, depth = [""], 0
    for part in re.findall(r"\"[^\"]*\"|'[^']*'|.", value, re.DOTALL):
        depth += (part in "[{(") - (part in "]})")
        if part == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += part
    return parts


def check_name(name: str) -> str:
    """Return `name` if git, Slurm and file systems accept it. Otherwise, raise LeafError."""
    if not _NAME.fullmatch(name) or ".." in name or name.endswith((".", ".lock")):
        raise LeafError(
            f"{name!r}: not a valid experiment name. Use at most 100 ASCII letters, digits, . _ and -. Start with "
            "a letter, digit or _, do not use .. and do not end with . or .lock."
        )
    return name


def _planned(row: str, combination: tuple[str, ...], setting: Mapping[str, Any], values: Mapping[str, Any]) -> Planned:
    checked = with_settings(values, setting, row or "-S")
    for key in _FILE_KEYS:
        path = str(getattr(checked, key))
        if path.startswith("~") or Path(path).is_absolute() or ".." in Path(path).parts:
            raise LeafError(
                f"{key}: {path}: outside the project, so the target does not have it. Copy it to data/raw, "
                "`dvc add` it there, commit, and set the path."
            )
    swept = "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.") for part in combination)
    name = "-".join(part for part in (row, swept) if part) or "run"
    if len(name) > 80:  # the hash keeps shortened names distinct
        name = f"{name[:71]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Planned(check_name(name), tuple(dvc_settings(setting)))


@dataclass
class Record:
    """A submitted job: its target, its experiments, and the final states known so far."""

    id: str
    target: str
    settings: dict[str, Any]  # the target's keys in runner.yaml at submission
    revision: str
    experiments: list[Planned]
    ended: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.id}.json"

    def write(self) -> None:
        write_json(asdict(self), self.path)

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.experiments]

    @property
    def open(self) -> list[str]:
        """The names of experiments without a known final state."""
        return [name for name in self.names if name not in self.ended]


def read_records() -> list[Record]:
    """Return the records of all jobs, oldest first."""
    records = []
    for path in sorted(FOLDER.glob("*.json")):
        try:
            records.append(TypeAdapter(Record).validate_python(read_json(path)))
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise LeafError(f"{path}: {where}: damaged. Delete the file to remove the job from the list.") from None
    return records


def choose(names: list[str]) -> list[tuple[Record, list[str]]]:
    """Return the records and experiment names for job IDs or experiment names (newest match). Default: all."""
    records = read_records()
    if not names:
        return [(record, record.names) for record in records]
    chosen = []
    for name in names:
        record = next((one for one in reversed(records) if name in (one.id, *one.names)), None)
        if record is None:
            raise LeafError(f"{name}: no such job or experiment. List them with `leaf jobs`.")
        chosen.append((record, record.names if name == record.id else [name]))
    return chosen
