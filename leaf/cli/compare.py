"""`leaf compare`: the predictions of git revisions, DVC experiments and the workspace, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from leaf.errors import LeafError
from leaf.revisions import PREDICTIONS, class_names, parameters, reader, table
from leaf.scoring.compare import Comparison, compare, holm
from leaf.similarity.groups import components, same_name_pairs

app = typer.Typer()


@dataclass(frozen=True)
class ScoredRevision:
    """The predictions that a revision holds: `table` has `image,label,predicted,source,hash,group`, by source."""

    revision: str
    image_size: int
    table: pd.DataFrame


def compare_revisions(revisions: Sequence[str], split: str = "test") -> list[Comparison]:
    """Compare every further revision with the first, on the images of `split`; p corrected by Holm for their number.

    A revision is `workspace`, or whatever git or DVC names: a commit, a branch, an experiment. Several that are joined
    by commas are seeds of one recipe. Raises LeafError where a revision is unknown, holds no predictions, or was
    scored on other images.
    """
    if len(revisions) < 2:
        raise LeafError("compare: one revision; valid: two or more, `workspace` for the files as they are")
    if len(set(revisions)) < len(revisions):
        raise LeafError(f"compare: a revision is named twice: {' '.join(revisions)}")
    recipes = {name: [read_predictions(revision, split) for revision in name.split(",")] for name in revisions}
    runs = [run for recipe in recipes.values() for run in recipe]
    for run in runs[1:]:
        check_same_images(runs[0], run, split)
    groups = joined_groups([run.table["group"].to_numpy() for run in runs])
    right = {name: np.stack([_right(run) for run in recipe]) for name, recipe in recipes.items()}
    first, *others = recipes
    labels, names = runs[0].table["label"].to_numpy(), class_names(reader(runs[-1].revision))
    return holm(
        [compare((first, other), right[first], right[other], groups, by_class=(labels, names)) for other in others]
    )


def read_predictions(revision: str, split: str) -> ScoredRevision:
    """Read the predictions on `split` at a revision with their groups and sources, sorted by source."""
    read = reader(revision)
    predictions = table(read, PREDICTIONS)
    predictions = predictions[predictions["split"].eq(split)]
    if predictions.empty:
        raise LeafError(f"{revision}: no predictions on {split}; valid: a split that the run was scored on (--split)")
    found = predictions[["image", "label", "predicted"]].merge(
        table(read, "data/cleaned/decisions.csv")[["image", "group"]], on="image"
    )
    found = found.merge(table(read, "data/ingested/index.csv")[["image", "source", "hash"]], on="image")
    size = parameters(read).get("image_size", 0)
    return ScoredRevision(revision, size, found.sort_values("source", ignore_index=True))


def check_same_images(one: ScoredRevision, other: ScoredRevision, split: str) -> None:
    """Raise LeafError unless both runs were scored on the same images with the same labels.

    The same source is the same image, and where both runs have images of one size, the same pixels.
    """
    shared = set(one.table["source"]) & set(other.table["source"])
    what = f"{one.revision} and {other.revision}: their {split} images differ"
    remedy = "compare runs with the same data set, split_seed and sizes"
    if len(shared) < max(len(one.table), len(other.table)):
        raise LeafError(
            f"{what}: {len(one.table)} and {len(other.table)} images, {len(shared)} of them in both; {remedy}"
        )
    if one.image_size == other.image_size and (changed := one.table["hash"].ne(other.table["hash"]).sum()):
        raise LeafError(f"{what}: {changed} of {len(one.table)} show other pixels; {remedy}")
    if relabelled := one.table["label"].ne(other.table["label"]).sum():
        raise LeafError(f"{what}: {relabelled} of {len(one.table)} have another label; {remedy}")


def joined_groups(groupings: Sequence[np.ndarray]) -> np.ndarray:
    """Images that any of the groupings (each (N,)) puts together, as one grouping, int64 (N,)."""
    pairs = [same_name_pairs(grouping) for grouping in groupings]
    return components(len(groupings[0]), np.concatenate(pairs))


def describe(comparisons: Sequence[Comparison]) -> str:
    """A few lines on each comparison, its plain sentence first."""
    lines = []
    for one in comparisons:
        seeds = [f" over {number} seeds" if number > 1 else "" for number in one.seeds]
        lines += [
            one.sentence,
            f"  accuracy: {one.a} {one.accuracy[0]:.3f}{seeds[0]}, {one.b} {one.accuracy[1]:.3f}{seeds[1]}",
            f"  right where the other is wrong: {one.a} on {one.only_a} images, {one.b} on {one.only_b}",
            f"  exact test p = {one.p:.2g}, after Holm's correction {one.p_holm:.2g}; "
            f"interval from a paired bootstrap over {one.groups} groups",
            *(
                f"  of {each.images} {each.name}: found {each.recall[0]:.3f} and {each.recall[1]:.3f}, right alone "
                f"{each.only_a} and {each.only_b}, p = {each.p_holm:.2g} after Holm's correction for the classes"
                for each in one.classes
            ),
        ]
    if max(max(one.seeds) for one in comparisons) == 1:
        lines.append("One seed each: how much another seed would change is not in these intervals (REV,REV,… adds it).")
    return "\n".join(lines)


def _right(run: ScoredRevision) -> np.ndarray:
    return run.table["predicted"].eq(run.table["label"]).to_numpy()


@app.command(
    epilog="Examples: `leaf compare HEAD workspace`   `leaf compare main dropout_02`   "
    "`leaf compare seed-1,seed-2 wider-1,wider-2`"
)
def command(
    revisions: Annotated[list[str], typer.Argument(help="REV_A REV_B [REV…]; seeds of one recipe joined by commas")],
    split: Annotated[str, typer.Option(help="the images to compare on: test or validation")] = "test",
) -> None:
    """Say whether runs are better than the first: git revisions, DVC experiments, or `workspace`."""
    typer.echo(describe(compare_revisions(revisions, split)))
