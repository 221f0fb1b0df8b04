"""`leaf compare`: the predictions of git revisions, DVC experiments and the workspace, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from leaf.clean.groups import components, same_name_pairs
from leaf.errors import LeafError
from leaf.evaluate.model_comparison import Comparison, compare, holm
from leaf.revisions import PREDICTIONS, class_names, reader, table

app = typer.Typer()

TEST = "McNemar's exact test"
OVER_SEEDS = "exact sign test of the images, which for one seed each is McNemar's"


@dataclass(frozen=True)
class ScoredRevision:
    """What a revision holds, a row for each image: by `key`, its file's hash and which of equal files it is.

    `table`: the images that it was scored on, `source,label,predicted`, the last two class names. `everything`: all
    that it ingested, `group,split`, "" for a split where an image was removed.
    """

    revision: str
    table: pd.DataFrame
    everything: pd.DataFrame


def compare_revisions(revisions: Sequence[str], split: str = "test", same_labels: bool = False) -> list[Comparison]:
    """Compare every further revision with the first, on the images of `split`; p corrected by Holm for their number.

    A revision is `workspace`, or whatever git or DVC names: a commit, a branch, an experiment. Several that are joined
    by commas are seeds of one recipe. Where their images differ, those count that all were scored on and none learned
    from; with `same_labels` less those that have another label in another run, as after a person's ruling. Raises
    LeafError where a revision is unknown, holds no predictions, or shares no such image with the others.
    """
    if len(revisions) < 2:
        raise LeafError("compare: one revision; valid: two or more, `workspace` for the files as they are")
    if len(set(revisions)) < len(revisions):
        raise LeafError(f"compare: a revision is named twice: {' '.join(revisions)}")
    recipes = {name: [read_predictions(revision, split) for revision in name.split(",")] for name in revisions}
    runs = [run for recipe in recipes.values() for run in recipe]
    keys, groups = shared_images(runs, split, same_labels)
    right = {name: np.stack([_right(run, keys) for run in recipe]) for name, recipe in recipes.items()}
    first, *others = recipes
    names = class_names(reader(runs[-1].revision))
    labels = np.array([names.index(label) for label in runs[-1].table.loc[keys, "label"]])
    found = [compare((first, other), right[first], right[other], groups, by_class=(labels, names)) for other in others]
    scored = {name: len(recipe[0].table) for name, recipe in recipes.items()}
    if set(scored.values()) != {len(keys)}:
        found = [replace(one, scored=(scored[one.a], scored[one.b])) for one in found]
    return holm(found)


def read_predictions(revision: str, split: str) -> ScoredRevision:
    """Read the predictions on `split` at a revision, and the group and split of every image."""
    read = reader(revision)
    predictions = table(read, PREDICTIONS)
    predictions = predictions.loc[predictions["split"].eq(split), ["image", "label", "predicted"]]
    if predictions.empty:
        raise LeafError(f"{revision}: no predictions on {split}; valid: a split that the run was scored on (--split)")
    index = table(read, "data/ingested/index.csv")
    if "file_hash" not in index:
        raise LeafError(f"{revision}: its images have no file_hash; run the pipeline there with this version of leaf")
    names = pd.Series(class_names(read))
    index["key"] = index["file_hash"] + " " + index.groupby("file_hash").cumcount().astype(str)
    index = index[["image", "source", "key"]].set_index("key")
    groups = table(read, "data/cleaned/decisions.csv").set_index("image")["group"]
    splits = table(read, "data/split/splits.csv").set_index("image")["split"]
    everything = pd.DataFrame({"group": index["image"].map(groups), "split": index["image"].map(splits).fillna("")})
    predictions = predictions.set_index("image")
    scored = index[index["image"].isin(predictions.index)]
    columns = {name: scored["image"].map(predictions[name]).map(names) for name in ("label", "predicted")}
    return ScoredRevision(revision, pd.DataFrame({"source": scored["source"], **columns}), everything)


def shared_images(runs: Sequence[ScoredRevision], split: str, same_labels: bool = False) -> tuple[pd.Index, np.ndarray]:
    """The keys (N,) of the images that all runs were scored on and none learned from, and their groups, int64 (N,).

    Images are in one group where any of the runs says so. Learned from is a group of which a run has an image in
    another split. Raises LeafError where there is no such image, or one has another label in another run, unless
    `same_labels` leaves it out.
    """
    everything = pd.concat([run.everything for run in runs])
    number, known = pd.factorize(everything.index)
    starts = np.cumsum([0, *(len(run.everything) for run in runs)])
    pairs = [
        number[start + same_name_pairs(run.everything["group"].to_numpy())]
        for start, run in zip(starts, runs, strict=False)
    ]
    groups = pd.Series(components(len(known), np.concatenate(pairs)), known)
    learned = groups[everything.index[~everything["split"].isin([split, ""])]].unique()
    keys = runs[0].table.index
    for run in runs[1:]:
        keys = keys.intersection(run.table.index, sort=False)
    keys = keys[~groups[keys].isin(learned)]
    if same_labels:
        named = pd.concat([run.table.loc[keys, "label"] for run in runs], axis=1)
        keys = keys[named.nunique(axis=1).eq(1)]
    what = " and ".join(run.revision for run in runs)
    if not len(keys):
        raise LeafError(
            f"{what}: no image that all were scored on ({split}) and none learned from; valid: runs of one data set "
            "that share such images"
        )
    for run in runs[1:]:
        if relabelled := runs[0].table.loc[keys, "label"].ne(run.table.loc[keys, "label"]).sum():
            raise LeafError(
                f"{runs[0].revision} and {run.revision}: {relabelled} of {len(keys)} images on {split} have another "
                "label; compare runs with the same labels, or leave these images out (--same-labels)"
            )
    return keys, groups[keys].to_numpy()


def describe(comparisons: Sequence[Comparison]) -> str:
    """A few lines on each comparison, its plain sentence first."""
    lines = []
    for one in comparisons:
        seeds = [f" over {number} seeds" if number > 1 else "" for number in one.seeds]
        lines += [
            one.sentence,
            *(
                [
                    f"  on the {one.images} images that all were scored on and none learned from: {one.a} was scored "
                    f"on {one.scored[0]}, {one.b} on {one.scored[1]}"
                ]
                if any(one.scored)
                else []
            ),
            f"  accuracy: {one.a} {one.accuracy[0]:.3f}{seeds[0]}, {one.b} {one.accuracy[1]:.3f}{seeds[1]}",
            f"  right where the other is wrong: {one.a} on {one.only_a} images, {one.b} on {one.only_b}",
            f"  {TEST if max(one.seeds) == 1 else OVER_SEEDS}: p = {one.p:.2g}, after Holm's correction "
            f"{one.p_holm:.2g}; interval from a paired bootstrap over {one.groups} groups",
            *(
                f"  of {each.images} {each.name}: found {each.recall[0]:.3f} and {each.recall[1]:.3f}, right alone "
                f"{each.only_a} and {each.only_b}, p = {each.p_holm:.2g} after Holm's correction for the classes"
                for each in one.classes
            ),
        ]
    if max(max(one.seeds) for one in comparisons) == 1:
        lines.append("One seed each: how much another seed would change is not in these intervals (REV,REV,… adds it).")
    return "\n".join(lines)


def _right(run: ScoredRevision, keys: pd.Index) -> np.ndarray:
    table = run.table.loc[keys]
    return table["predicted"].eq(table["label"]).to_numpy()


@app.command(
    epilog="Examples: `leaf compare HEAD workspace`   `leaf compare main dropout_02`   "
    "`leaf compare seed-1,seed-2 wider-1,wider-2`"
)
def command(
    revisions: Annotated[list[str], typer.Argument(help="REV_A REV_B [REV…]; seeds of one recipe joined by commas")],
    split: Annotated[str, typer.Option(help="the images to compare on: test or validation")] = "test",
    same_labels: Annotated[
        bool, typer.Option("--same-labels", help="leave out images that a ruling relabelled in between")
    ] = False,
) -> None:
    """Say whether runs are better than the first: git revisions, DVC experiments, or `workspace`."""
    typer.echo(describe(compare_revisions(revisions, split, same_labels)))
