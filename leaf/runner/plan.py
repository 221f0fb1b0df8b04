"""What a job is: its experiments (rows, settings, sweeps), and the record that is kept of one submitted here."""

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
from leaf.experiments import dvc_settings, parse_settings, read_experiments, with_settings
from leaf.store import read_json, read_yaml, write_json

MOST = 1000  # experiments in one job
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_FILE_KEYS = ("dataset", "labels", "masks", "weights")  # parameters that may name a file


@dataclass(frozen=True)
class Planned:
    """An experiment: its name and its settings, `key=value` in the grammar of `dvc exp run -S`."""

    name: str
    settings: tuple[str, ...]


def plan(
    rows: Sequence[str],
    settings: Sequence[str],
    every: bool = False,
    name: str | None = None,
    look: Callable[[Mapping[str, Any], str], Mapping[str, Any]] = lambda setting, _: setting,
) -> list[Planned]:
    """The experiments of the rows (all of them with `every`), each with every combination of the settings.

    Without a row there is one experiment for each combination. `name` is the name of a single experiment, and stands
    before the names of several. Each is checked against the schema of params.yaml, so
    that a mistake shows here and not on a rented machine. Raises LeafError for it. `look` is given each experiment's
    settings and its row, and gives the settings that it is to have.
    """
    if every and rows:
        raise LeafError("submit: name rows or give --all, not both")
    table: dict[str, Mapping[str, Any]] = {}
    if every or rows:
        known = read_experiments()
        for row in rows or known:
            if row not in known:
                raise LeafError(f"experiments.yaml: {row}: no such experiment; valid: {', '.join(known)}")
            table[row] = known[row].set
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
            f"{twice}: two experiments of one name; vary the settings or submit them one by one with --name"
        )
    if len(planned) > MOST:
        raise LeafError(f"submit: {len(planned)} experiments; valid: at most {MOST} in one job")
    return planned


def sweep(settings: Iterable[str]) -> list[tuple[str, ...]]:
    """Every combination of the settings' values: `a=1,2` and `b=3,4` are four; commas in brackets or quotes stay."""
    choices = []
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.]*", key):
            raise LeafError(f"-S {setting}: not a setting; valid: key=value, or key=value,value for a sweep")
        choices.append([f"{key}={part}" for part in split_commas(value)])
    return list(product(*choices))


def split_commas(value: str) -> list[str]:
    """Split at the commas that stand outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in value:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in "]})":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append("")
            continue
        parts[-1] += letter
    return parts


def check_name(name: str) -> str:
    """A name that git, Slurm and a file system all take. Raises LeafError for another."""
    if not _NAME.fullmatch(name) or ".." in name or name.endswith((".", ".lock")):
        raise LeafError(f"{name!r}: no name for an experiment; valid: letters, digits, . _ -, at most 100")
    return name


def _planned(row: str, combination: tuple[str, ...], setting: Mapping[str, Any], values: Mapping[str, Any]) -> Planned:
    checked = with_settings(values, setting, row or "-S")
    for key in _FILE_KEYS:
        path = str(getattr(checked, key))
        if path.startswith("~") or Path(path).is_absolute() or ".." in Path(path).parts:
            raise LeafError(
                f"{key}: {path} is outside the project, so the target does not have it; copy it to data/raw, "
                "`dvc add` it there, commit, and set the path"
            )
    swept = "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.") for part in combination)
    own = "-".join(part for part in (row, swept) if part)
    return Planned(check_name(_short(own or "run")), tuple(dvc_settings(setting)))


def _short(name: str) -> str:
    """Long names end in a hash of the whole, so that they stay different."""
    return name if len(name) <= 80 else f"{name[:71]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


FOLDER = Path(".dvc") / "tmp" / "leaf" / "records"
ENDED = ("done", "failed", "cancelled", "stopped", "lost")


@dataclass
class Record:
    """A job: where it went, what it runs, and how each experiment ended once that is known."""

    id: str
    target: str
    settings: dict[str, Any]  # the target's part of runner.yaml as it was
    revision: str
    experiments: list[Planned]
    ended: dict[str, str] = field(default_factory=dict)

    def write(self) -> None:
        write_json(asdict(self), FOLDER / f"{self.id}.json")

    def remove(self) -> None:
        (FOLDER / f"{self.id}.json").unlink(missing_ok=True)

    @property
    def open(self) -> list[int]:
        """The experiments whose end is not known here yet."""
        return [index for index, one in enumerate(self.experiments) if one.name not in self.ended]


def read_records() -> list[Record]:
    """Every job, oldest first."""
    records = []
    for path in sorted(FOLDER.glob("*.json")):
        try:
            records.append(TypeAdapter(Record).validate_python(read_json(path)))
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise LeafError(
                f"{path}: {where}: not as `leaf submit` writes it; delete the file, its job is lost"
            ) from None
    return records


def choose(names: list[str]) -> list[tuple[Record, list[int]]]:
    """Jobs by identity or experiments by name (the newest of that name), as records with indices; all for no name."""
    records = read_records()
    if not names:
        return [(record, list(range(len(record.experiments)))) for record in records]
    chosen = []
    for name in names:
        for record in reversed(records):
            indices = [index for index, one in enumerate(record.experiments) if name in (record.id, one.name)]
            if indices:
                chosen.append((record, indices))
                break
        else:
            raise LeafError(f"{name}: no such job or experiment; `leaf jobs` lists them")
    return chosen
