"""The one writer of data/overrides.csv (what a person rules) and data/reviewed.csv (what a person saw and left).

A change reads the file anew under a lock, alters single rows and writes the file whole, sorted, one row a line: what
another program or person wrote meanwhile stays, a kill loses at most the change in flight, and git merges two
people's rows.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import filelock
import pandas as pd

from leaf.clean.decisions import COLUMNS, PAIRED, TEXT, VERDICTS, pictures
from leaf.errors import LeafError
from leaf.store import read_edited_table, write_table

File = Literal["data/overrides.csv", "data/reviewed.csv"]
OVERRIDES: File = "data/overrides.csv"
REVIEWED: File = "data/reviewed.csv"
SEEN = ("seen", "unsure")  # the verdicts in data/reviewed.csv: right as it is; somebody else should look
# `question` is what was asked of the picture (leaf.review.queue), `other` the second picture of a pair.
FILES: dict[File, Sequence[str]] = {
    OVERRIDES: TEXT,
    REVIEWED: ("hash", "verdict", "question", "who", "why", "date", "run", "other"),
}
Row = dict[str, str]
_PATIENCE = 10.0  # seconds; a change takes milliseconds


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """The rows of either file, [] where there is none; further columns stay. Raises LeafError for a broken one."""
    if not path.exists():
        return []
    required = COLUMNS if tuple(columns) == TEXT else columns
    table = read_edited_table(path, required, columns)
    table = table.reindex(columns=[*columns, *table.columns.difference(list(columns), sort=False)]).fillna("")
    return [{str(name): str(cell) for name, cell in row.items()} for row in table.to_dict("records")]


def resolved(rows: Sequence[Row], index: pd.DataFrame) -> list[Row]:
    """The rows with `hash` and `other` as hashes of pixels, where they name pictures of `index`; see `pictures`."""
    known = pictures(index, {row[name].strip() for row in rows for name in ("hash", "other")})
    named = [{name: row[name].strip() for name in ("hash", "other")} for row in rows]
    return [
        row | {name: known.get(called) or known.get(called.lower(), called) for name, called in names.items()}
        for row, names in zip(rows, named, strict=True)
    ]


def _kinds(rows: Sequence[Row], index: pd.DataFrame) -> list[tuple[str, ...]]:
    """What each row speaks about: a later row of the same kind takes its place."""
    kinds: list[tuple[str, ...]] = []
    for row in resolved(rows, index):
        picture, other, ruling = row["hash"], row["other"], row.get("ruling", "").strip()
        if "verdict" in row:
            kinds.append((picture, row["question"], other))
        elif ruling in PAIRED:
            kinds.append(("pair", min(picture, other), max(picture, other)))
        else:
            kinds.append((picture, "verdict" if ruling in VERDICTS else ruling))
    return kinds


def change(
    path: Path, columns: Sequence[str], index: pd.DataFrame, add: Sequence[Row], remove: Sequence[Row] = ()
) -> list[Row]:
    """Add rows, each in place of those of its kind, and remove rows; returns those whose place was taken.

    `index` is that of the data set: its pictures have several names. Raises LeafError, and changes nothing, where a row
    to `remove` is no longer there as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(path.with_name(f".{path.name}.lock"), timeout=_PATIENCE):
            rows = read_rows(path, columns)
            for row in remove:
                if row not in rows:
                    raise LeafError(f"{path}: the row on {row['hash']} was changed by another hand; undo it there")
            order = list(rows[0]) if rows else list(columns)
            rows = [row for row in rows if row not in remove]
            gone, kinds = set(_kinds(add, index)), _kinds(rows, index)
            replaced = [row for row, each in zip(rows, kinds, strict=True) if each in gone]
            rest = [row for row, each in zip(rows, kinds, strict=True) if each not in gone]
            table = pd.DataFrame([*rest, *add], columns=order).fillna("")
            write_table(table.sort_values([columns[0], columns[1], "other"], kind="stable"), path)
    except filelock.Timeout:
        raise LeafError(f"{path}: another program holds its lock for {_PATIENCE:.0f} seconds; try again") from None
    return replaced


def summary(now: Sequence[Row], before: Sequence[Row]) -> str:
    """What the rows of data/overrides.csv say beyond those `before`: `12 rulings: 3 dropped, 8 relabelled, 1 group`."""
    past = {"keep": "kept", "drop": "dropped", "relabel": "relabelled", "group": "group", "apart": "apart"}
    now = [{name: row[name] for name in TEXT} for row in now]
    new = [row for row in now if row not in before]
    counts = Counter(past.get(row["ruling"].strip(), row["ruling"]) for row in new)
    parts = [f"{counts[name]} {name}" for name in past.values() if counts[name]]
    about = {(row["hash"], row["other"]) for row in new}
    if gone := sum(row not in now and (row["hash"], row["other"]) not in about for row in before):
        parts.append(f"{gone} taken back")
    return f"{len(new)} ruling{'s' * (len(new) != 1)}" + (f": {', '.join(parts)}" if parts else "")
