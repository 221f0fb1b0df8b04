"""What was submitted from here: one small file a job, under .dvc/tmp, which git ignores."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from leaf.errors import LeafError
from leaf.runner.plan import Planned
from leaf.store import read_json, write_json

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
        values = read_json(path)
        planned = [Planned(one["name"], tuple(one["settings"])) for one in values.pop("experiments")]
        records.append(Record(experiments=planned, **values))
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
