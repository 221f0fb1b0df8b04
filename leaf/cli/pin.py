"""`leaf pin`: pin the current split."""

import pandas as pd
import typer

from leaf import params
from leaf.errors import LeafError
from leaf.split import PIN_COLUMNS, PINNED, SPLITS
from leaf.store import read_edited_table, read_table, write_table

app = typer.Typer()


def pin() -> str:
    """Add every image of the split and its removed copies to data/pinned.csv. Return a summary.

    Pins that stand there stay, also those of images that are not in the data set any more. Raises LeafError where the
    split is a fold or tears groups apart.
    """
    choices = params.load()
    if choices.folds or choices.grouping == "none":
        raise LeafError("pin: folds, or grouping: none, made this split for a comparison; valid: folds 0 and groups")
    splits = read_table("data/split/splits.csv", ["image", "split"], text=["split"])
    groups = read_table("data/cleaned/decisions.csv", ["image", "group"])[["image", "group"]]
    index = read_table("data/ingested/index.csv", ["image", "file_hash"], text=["file_hash"])
    of_group = splits.merge(groups, on="image").drop_duplicates("group")[["group", "split"]]
    today = groups.merge(of_group, on="group").merge(index[["image", "file_hash"]], on="image")
    before = read_edited_table(PINNED, PIN_COLUMNS)
    pins = pd.concat([before, today[list(PIN_COLUMNS)]]).drop_duplicates("file_hash").sort_values("file_hash")
    write_table(pins, PINNED)
    counts = ", ".join(f"{pins['split'].eq(name).sum()} {name}" for name in SPLITS)
    return f"{PINNED}: {len(pins)} images pinned, {len(pins) - len(before)} of them new: {counts}; commit it to git"


@app.command(epilog="Example: `leaf pin`, then commit data/pinned.csv to git")
def command() -> None:
    """Pin the current images to their splits, whatever is added, renamed or deleted later."""
    typer.echo(pin())
