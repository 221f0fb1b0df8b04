"""metadata.csv: which file has which label, or its class folder says so, and if the user knows them group and split."""

import csv
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from leaf.errors import LeafError

FILE = "metadata.csv"
_SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}


@dataclass(frozen=True)
class Entry:
    """One image file: its path relative to the data set, its label 0 or 1, group and split ("" where not given)."""

    file: str
    label: int
    group: str
    split: str


def split_name(text: str) -> str:
    """`train`, `validation` or `test` for what people call them, "" for anything else."""
    return _SPLITS.get(text.strip().lower(), "")


def read_metadata(root: Path, classes: tuple[str, str]) -> list[Entry]:
    """Read metadata.csv of the folder `root`. Raises LeafError naming the line of the first mistake."""
    path = root / FILE
    entries: list[Entry] = []
    seen: set[str] = set()
    for line, row in _rows(path):
        entry = _entry(root, row, classes, f"{path}: line {line}")
        if entry.file in seen:
            raise LeafError(f"{path}: line {line}: {entry.file!r} stands there twice")
        seen.add(entry.file)
        entries.append(entry)
    return entries


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            if "file" not in names:
                found = ", ".join(names) or "none"
                raise LeafError(f"{path}: its columns are {found}; valid: file, and any of label, group, split")
            for row in reader:
                if None in row or None in row.values():
                    raise LeafError(f"{path}: line {reader.line_num}: not {len(names)} fields")
                yield reader.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise LeafError(f"{path}: not a readable CSV table in UTF-8 ({error})") from None


def _entry(root: Path, row: dict[str, str], classes: tuple[str, str], where: str) -> Entry:
    name = row["file"]
    pure = PurePosixPath(name)
    if not name or "\0" in name or "\r" in name or pure.is_absolute() or ".." in pure.parts:
        raise LeafError(f"{where}: the file {name!r}; valid: a path inside the data set's folder, without ..")
    try:
        mode = (root / pure).stat().st_mode
    except (OSError, ValueError):
        raise LeafError(f"{where}: {name!r}: no such file in {root}") from None
    if not stat.S_ISREG(mode):
        raise LeafError(f"{where}: {name!r} is no file")
    label = row["label"] if "label" in row else next((part for part in pure.parts[:-1] if part in classes), None)
    if label is None:
        raise LeafError(f"{where}: {name!r} lies in no class folder; valid: {', '.join(classes)}, or a column `label`")
    if label not in classes:
        raise LeafError(f"{where}: the label {label!r}; valid: {', '.join(classes)} (key `classes`)")
    given = (row.get("split") or "").strip()
    split = split_name(given)
    if given and not split:
        raise LeafError(f"{where}: the split {given!r}; valid: train, validation, test, or empty")
    return Entry(str(pure), classes.index(label), row.get("group") or "", split)
