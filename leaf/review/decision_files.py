"""Read and write the files of the review pages: overrides.csv, reviewed.csv and labels.csv in data/.

Each change locks the file, reads it, replaces individual rows, and rewrites the whole file, sorted, with one line per
row. Edits by other programs are therefore kept, a killed process loses at most the current change, and git can merge
rows written by two people.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import filelock
import pandas as pd

from leaf.clean.decisions import COLUMNS, PAIRED, TEXT, VERDICTS, pixel_hashes
from leaf.edited_tables import read_edited_table
from leaf.errors import LeafError, plural
from leaf.ingest.label_tables import GIVEN_COLUMNS
from leaf.ingest.unlabelled import CONFLICT
from leaf.store import write_table

File = Literal["data/overrides.csv", "data/reviewed.csv", "data/labels.csv"]
OVERRIDES: File = "data/overrides.csv"
REVIEWED: File = "data/reviewed.csv"
LABELS: File = "data/labels.csv"
SEEN = ("seen", "unsure")  # verdicts in data/reviewed.csv: correct as it is; unsure
# `question` is the kind of case (leaf.review.queue), and `other` is the second image of a pair.
FILES: dict[File, Sequence[str]] = {
    OVERRIDES: TEXT,
    REVIEWED: ("hash", "verdict", "question", "who", "why", "date", "run", "other", "file"),
    LABELS: ("file", "label", "group", "split", *GIVEN_COLUMNS),
}
_REQUIRED: dict[File, Sequence[str]] = {OVERRIDES: COLUMNS, REVIEWED: FILES[REVIEWED][:-1], LABELS: ("file", "label")}
_SORTED = {OVERRIDES: ["hash", "ruling", "other"], REVIEWED: ["hash", "verdict", "other"], LABELS: ["file_hash", "who"]}
Row = dict[str, str]
Key = tuple[str, ...]
_LOCK_SECONDS = 10.0


def read_rows(folder: Path, file: File) -> list[Row]:
    """Return a file's rows with any additional columns, or [] if it is missing. Raises LeafError if it is damaged."""
    path, columns = folder / file, FILES[file]
    if not path.exists():
        return []
    table = read_edited_table(path, _REQUIRED[file], columns)
    table = table.reindex(columns=[*columns, *table.columns.difference(list(columns), sort=False)]).fillna("")
    return [{str(name): str(cell) for name, cell in row.items()} for row in table.to_dict("records")]


def resolved(rows: Sequence[Row], index: pd.DataFrame) -> list[Row]:
    """Replace `hash` and `other` with pixel hashes in each row whose images are in `index`; see `pixel_hashes`."""
    names = ("hash", "other")
    known = pixel_hashes(index, {row[name] for row in rows for name in names})
    return [
        row | {name: known.get(row[name]) or known.get(row[name].lower(), row[name]) for name in names} for row in rows
    ]


def _keys(file: File, rows: Sequence[Row], index: pd.DataFrame) -> list[Key]:
    """Return the key of each row. A new row replaces the rows with the same key.

    The key of a decision is its image or pair and its kind. The key of a label is its image and person, without the
    person for a resolved conflict. Labels without a hash, as in any label table, have unique keys.
    """
    if file == LABELS:
        return [
            (row["file_hash"], row["who"] * (row["chosen"] != CONFLICT)) if row["file_hash"] else ("", *row.values())
            for row in rows
        ]
    keys: list[Key] = []
    for row in resolved(rows, index):
        image, other = row["hash"], row["other"]
        if file == REVIEWED:
            keys.append((image, row["question"], other))
        elif row["ruling"] in PAIRED:
            keys.append(("pair", min(image, other), max(image, other)))
        else:
            keys.append((image, "verdict" if row["ruling"] in VERDICTS else row["ruling"]))
    return keys


def change(folder: Path, file: File, index: pd.DataFrame, add: Sequence[Row], remove: Sequence[Row] = ()) -> list[Row]:
    """Remove the rows `remove` and add the rows `add`. Return the rows that they replace; see `_keys`.

    Raises LeafError and writes nothing if a row of `remove` is missing or has changed.
    """
    path, columns = folder / file, FILES[file]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_SECONDS):
            rows = read_rows(folder, file)
            if missing := [row[columns[0]] for row in remove if row not in rows]:
                raise LeafError(
                    f"{path}: another program changed or removed the row for {missing[0]}, so the change cannot "
                    "be undone here. Edit the file instead."
                )
            order = list(rows[0]) if rows else list(columns)
            rows = [row for row in rows if row not in remove]
            new, old = set(_keys(file, add, index)), _keys(file, rows, index)
            replaced = [row for row, key in zip(rows, old, strict=True) if key in new]
            rest = [row for row, key in zip(rows, old, strict=True) if key not in new]
            table = pd.DataFrame([*rest, *add], columns=order).fillna("")
            write_table(table.sort_values(_SORTED[file], kind="stable"), path)
    except filelock.Timeout:
        raise LeafError(f"{path}: locked by another program for {_LOCK_SECONDS:.0f} seconds. Try again.") from None
    return replaced


def summary(now: Sequence[Row], before: Sequence[Row]) -> str:
    """Summarize the changes to data/overrides.csv since `before`: `12 decisions: 3 dropped, 8 relabeled, 1 grouped`."""
    past = {"keep": "kept", "drop": "dropped", "relabel": "relabeled", "group": "grouped", "apart": "separated"}
    now = [{name: row[name] for name in TEXT} for row in now]
    new = [row for row in now if row not in before]
    counts = Counter(row["ruling"] for row in new)
    parts = [f"{counts[kind]} {done}" for kind, done in past.items() if counts[kind]]
    changed = {(row["hash"], row["other"]) for row in new}
    if gone := sum(row not in now and (row["hash"], row["other"]) not in changed for row in before):
        parts.append(f"{gone} undone")
    return plural(len(new), "decision") + (f": {', '.join(parts)}" if parts else "")
