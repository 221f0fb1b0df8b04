"""Pin images to a split in data/pinned.csv, so that adding, renaming or deleting images does not move them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from leaf import params
from leaf.edited_tables import read_edited_table
from leaf.errors import LeafError, plural
from leaf.split.stratified_split import PIN_COLUMNS, PINNED, SPLITS
from leaf.store import read_table, write_table


def join_pins(folder: Path, hashes: Sequence[str]) -> str:
    """Move the pins of these file hashes to one split, and return a summary, or "" if the pins already agree.

    The split is test if any of the images is pinned to test, otherwise validation. Images without a pin get none.
    """
    if not (folder / PINNED).exists():
        return ""
    pins = read_edited_table(folder / PINNED, PIN_COLUMNS)
    mine = pins["file_hash"].isin(hashes)
    best = next((name for name in reversed(SPLITS) if pins["split"][mine].eq(name).any()), "")
    moved = mine & pins["split"].ne(best)
    if not moved.any():
        return ""
    write_table(pins.assign(split=pins["split"].mask(moved, best)), folder / PINNED)
    return f"{PINNED}: moved {plural(int(moved.sum()), 'image')} to {best} to keep each group in one split."


def pin_split(folder: Path = Path()) -> str:
    """Add all images of the split, and their removed copies, to data/pinned.csv, and return a summary.

    Existing pins are kept. Raises LeafError if the split is a fold or does not keep groups together.
    """
    choices = params.load(folder / params.PARAMS_FILE)
    if choices.folds or choices.grouping == "none":
        raise LeafError(
            "pin: a split with folds or with grouping set to none cannot be pinned. Set folds to 0 and grouping to "
            "groups, then run `dvc repro split`."
        )
    splits = read_table(folder / "data/split/splits.csv", ["image", "split"], text=["split"])
    groups = read_table(folder / "data/cleaned/decisions.csv", ["image", "group"])[["image", "group"]]
    index = read_table(folder / "data/ingested/index.csv", ["image", "file_hash"], text=["file_hash"])
    of_group = splits.merge(groups, on="image").drop_duplicates("group")[["group", "split"]]
    current = groups.merge(of_group, on="group").merge(index[["image", "file_hash"]], on="image")
    before = read_edited_table(folder / PINNED, PIN_COLUMNS)
    pins = pd.concat([before, current[list(PIN_COLUMNS)]]).drop_duplicates("file_hash").sort_values("file_hash")
    write_table(pins, folder / PINNED)
    counts = ", ".join(f"{pins['split'].eq(name).sum()} {name}" for name in SPLITS)
    return f"{PINNED}: {plural(len(pins), 'image')} pinned ({len(pins) - len(before)} new): {counts}. Commit it to git."
