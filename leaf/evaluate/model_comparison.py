"""Compare the accuracy of runs on the same images: trained models, or recipes with several seeds each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
from scipy.stats import t

from leaf.clean.groups import components
from leaf.errors import LeafError
from leaf.evaluate.statistics import (
    LEVEL,
    holm,
    holm_levels,
    satterthwaite,
    sign_flip_test,
    standard_error,
    welch_test,
)
from leaf.revisions import PREDICTIONS, class_names, reader, table

Tested = TypeVar("Tested", bound="Difference")


@dataclass(frozen=True)
class Difference:
    """The difference between two accuracies, b − a, on the same images."""

    images: int
    accuracy: tuple[float, float]  # accuracy of a and b, averaged over seeds
    only_a: int  # number of images that a classifies correctly and b does not (in a larger share of its seeds than b)
    only_b: int
    error: float  # standard error of the difference
    freedom: float  # degrees of freedom of `error`
    p: float  # two-sided p-value
    p_holm: float  # p-value adjusted for the number of differences tested together
    level: float = LEVEL  # significance level of `low` and `high`; `adjust` lowers it to match p_holm
    name: str = ""  # class name if the accuracies are the recall of a class

    @property
    def difference(self) -> float:
        return self.accuracy[1] - self.accuracy[0]

    @property
    def low(self) -> float:
        return self.difference - self._half_width

    @property
    def high(self) -> float:
        return self.difference + self._half_width

    @property
    def _half_width(self) -> float:
        return float(t.ppf(1 - self.level / 2, self.freedom)) * self.error

    @property
    def points(self) -> str:
        """The difference and its confidence interval in percentage points."""
        value, low, high = (100 * value for value in (self.difference, self.low, self.high))
        return f"{value:+.1f} points ({100 * (1 - self.level):.3g}% CI {low:+.1f} to {high:+.1f})"


@dataclass(frozen=True)
class Comparison(Difference):
    """A comparison of the accuracy of run `b` with that of run `a` on the same images."""

    a: str = ""
    b: str = ""
    groups: int = 0  # number of image groups
    seeds: tuple[int, int] = (1, 1)  # number of seeds of a and b
    classes: tuple[Difference, ...] = ()  # differences in recall, adjusted for the number of classes
    scored: tuple[int, int] = (0, 0)  # numbers of images that a and b were scored on, unless both equal `images`

    @property
    def recipes(self) -> bool:
        """Whether both runs have several seeds, so that recipes rather than trained models are compared."""
        return min(self.seeds) > 1

    @property
    def verdict(self) -> Literal["better", "worse", "not distinguishable"]:
        if self.p_holm >= LEVEL or self.low <= 0 <= self.high:
            return "not distinguishable"
        return "better" if self.difference > 0 else "worse"

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        figures = f"accuracy {self.points}, p = {self.p_holm:.2g}"
        kind = "recipe" if self.recipes else "trained model"
        on = f"on these {self.images} images: {figures}."
        if self.verdict == "not distinguishable":
            return f"The {kind}s {self.b} and {self.a} are not distinguishable {on}"
        return f"The {kind} {self.b} is {self.verdict} than the {kind} {self.a} {on}"


def compare(
    names: tuple[str, str],
    right_a: np.ndarray,
    right_b: np.ndarray,
    groups: np.ndarray,
    by_class: tuple[np.ndarray, Sequence[str]] | None = None,
) -> Comparison:
    """Compare the accuracy of runs a and b on the same N images.

    The p-value is that of a sign-flip test over groups. If both runs have several seeds, it is the larger of this
    p-value and that of Welch's t-test over seeds, and the standard error includes the variance between seeds.

    Args:
        names: names of a and b.
        right_a: whether a classifies each image correctly with each of its S seeds, bool (S, N).
        right_b: the same for b, which may have a different number of seeds.
        groups: group of each image, (N,).
        by_class: labels, int (N,), and class names, to compare the recall of each class as well.
    """
    labels, class_labels = by_class or (np.zeros(0, int), ())
    classes = [
        Difference(**_difference(right_a[:, of], right_b[:, of], groups[of]), name=name)
        for label, name in enumerate(class_labels)
        if (of := labels == label).any()
    ]
    return Comparison(
        **_difference(right_a, right_b, groups),
        a=names[0],
        b=names[1],
        groups=len(np.unique(groups)),
        seeds=(len(right_a), len(right_b)),
        classes=tuple(adjust(classes)),
    )


def _difference(right_a: np.ndarray, right_b: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    mean_a, mean_b = right_a.mean(axis=0), right_b.mean(axis=0)
    p = sign_flip_test(mean_b - mean_a, groups)
    variances = [(standard_error(mean_b - mean_a, groups) ** 2, len(np.unique(groups)) - 1)]
    if min(len(right_a), len(right_b)) > 1:
        seeds = [right.mean(axis=1) for right in (right_a, right_b)]
        p = max(p, welch_test(*seeds))
        variances += [(np.var(each, ddof=1) / len(each), len(each) - 1) for each in seeds]
    return {
        "images": len(groups),
        "accuracy": (float(mean_a.mean()), float(mean_b.mean())),
        "only_a": int((mean_a > mean_b).sum()),
        "only_b": int((mean_b > mean_a).sum()),
        "error": math.sqrt(sum(variance for variance, _ in variances)),
        "freedom": max(satterthwaite(variances), 1.0),
        "p": p,
        "p_holm": p,
    }


def adjust(differences: Sequence[Tested]) -> list[Tested]:
    """Adjust the p-values and intervals of `differences` for multiple testing (Holm 1979)."""
    p_values = [one.p for one in differences]
    adjusted = zip(differences, holm(p_values), holm_levels(p_values), strict=True)
    return [replace(one, p_holm=p, level=level) for one, p, level in adjusted]


@dataclass(frozen=True)
class ScoredRevision:
    """The images of a revision. The index of both tables is the file hash and a counter of identical files."""

    revision: str
    table: pd.DataFrame  # source,label,predicted of scored images; label and predicted are class names
    everything: pd.DataFrame  # group,split of all ingested images; split is "" for removed images


def compare_revisions(revisions: Sequence[str], split: str = "test", same_labels: bool = False) -> list[Comparison]:
    """Compare each of the other revisions with the first on the images of `split`, with Holm's correction.

    A revision is `workspace`, a git commit or branch, or a DVC experiment. Runs of one recipe with different seeds are
    joined by commas. For the selection of images and `same_labels`, see `shared_images`.

    Raises:
        LeafError: if a revision is unknown, has no predictions, or shares no images with the others.
    """
    if len(revisions) < 2:
        raise LeafError("compare: requires at least two revisions. `workspace` means the current files.")
    if len(set(revisions)) < len(revisions):
        raise LeafError(f"compare: a revision is repeated: {' '.join(revisions)}. Pass each revision once.")
    recipes = {name: [_read_predictions(revision, split) for revision in name.split(",")] for name in revisions}
    runs = [run for recipe in recipes.values() for run in recipe]
    keys, groups = shared_images(runs, split, same_labels)
    right = {
        name: np.stack([run.table["predicted"].eq(run.table["label"])[keys].to_numpy() for run in recipe])
        for name, recipe in recipes.items()
    }
    first, *others = recipes
    names = class_names(reader(runs[-1].revision))
    labels = np.array([names.index(label) for label in runs[-1].table.loc[keys, "label"]])
    found = [compare((first, other), right[first], right[other], groups, by_class=(labels, names)) for other in others]
    scored = {name: len(recipe[0].table) for name, recipe in recipes.items()}
    if set(scored.values()) != {len(keys)}:
        found = [replace(one, scored=(scored[one.a], scored[one.b])) for one in found]
    return adjust(found)


def _read_predictions(revision: str, split: str) -> ScoredRevision:
    read = reader(revision)
    predictions = table(read, PREDICTIONS)
    splits_scored = predictions["split"].unique()
    predictions = predictions.loc[predictions["split"].eq(split), ["image", "label", "predicted"]]
    if predictions.empty:
        raise LeafError(f"{revision}: no predictions on {split}. Set --split to one of {', '.join(splits_scored)}.")
    index = table(read, "data/ingested/index.csv")
    names = pd.Series(class_names(read))
    if not predictions[["label", "predicted"]].isin(names.index).all(axis=None):
        raise LeafError(
            f"{revision}: {PREDICTIONS} and data/ingested/classes.csv have different classes. Run `dvc repro`."
        )
    index["key"] = index["file_hash"] + " " + index.groupby("file_hash").cumcount().astype(str)
    index = index[["image", "source", "key"]].set_index("key")
    groups = table(read, "data/cleaned/decisions.csv").set_index("image")["group"]
    splits = table(read, "data/split/splits.csv").set_index("image")["split"]
    everything = pd.DataFrame({"group": index["image"].map(groups), "split": index["image"].map(splits).fillna("")})
    predictions = predictions.set_index("image")
    rows = index[index["image"].isin(predictions.index)]
    columns = {name: rows["image"].map(predictions[name]).map(names) for name in ("label", "predicted")}
    return ScoredRevision(revision, pd.DataFrame({"source": rows["source"], **columns}), everything)


def shared_images(runs: Sequence[ScoredRevision], split: str, same_labels: bool = False) -> tuple[pd.Index, np.ndarray]:
    """Return the keys (N,) and groups, int64 (N,), of the images that all runs scored and none trained on.

    Images are in the same group if any run groups them. If an image of a group is in another split of a run, that run
    is considered to be trained on the whole group. With `same_labels`, images whose labels differ between runs, for
    example after a manual decision, are dropped.

    Raises:
        LeafError: if there is no such image, or if labels differ and `same_labels` is false.
    """
    everything = pd.concat([run.everything.assign(run=number) for number, run in enumerate(runs)])
    image, known = pd.factorize(everything.index)
    group = len(known) + everything.groupby(["run", "group"]).ngroup().to_numpy()
    joined = components(group.max() + 1, np.column_stack([image, group]))
    groups = pd.Series(joined[: len(known)], known)
    learned = groups[everything.index[~everything["split"].isin([split, ""])]].unique()
    labels = pd.concat([run.table["label"] for run in runs], axis=1, join="inner")
    labels = labels[~groups[labels.index].isin(learned).to_numpy()]
    differ = labels.nunique(axis=1).gt(1)
    if same_labels:
        labels, differ = labels[~differ], differ[~differ]
    what = " and ".join(run.revision for run in runs)
    if labels.empty:
        raise LeafError(
            f"{what}: no {split} image was scored in all runs and used for training in none. Compare runs on one data "
            "set with the same split_seed."
        )
    if differ.any():
        raise LeafError(
            f"{what}: the labels of {differ.sum()} of {len(labels)} {split} images differ. Compare runs with the same "
            "labels, or drop these images with --same-labels."
        )
    return labels.index, groups[labels.index].to_numpy()


def describe(comparisons: Sequence[Comparison]) -> str:
    """Return a few lines of text for each comparison, starting with the verdict."""
    lines = []
    for one in comparisons:
        lines.append(one.sentence)
        if any(one.scored):
            lines.append(
                f"  {one.images} images were scored in all runs and used for training in none; {one.a} was scored on "
                f"{one.scored[0]} images, {one.b} on {one.scored[1]}"
            )
        more = "more often" if max(one.seeds) > 1 else "only"
        seeds = [f" (mean of {number} seeds)" if number > 1 else "" for number in one.seeds]
        test = f"sign-flip test over {one.groups} groups"
        test = f"the larger p of a {test} and Welch's t-test over seeds" if one.recipes else test
        lines += [
            f"  accuracy: {one.a} {one.accuracy[0]:.3f}{seeds[0]}, {one.b} {one.accuracy[1]:.3f}{seeds[1]}",
            f"  images classified correctly {more} by {one.a}: {one.only_a}; {more} by {one.b}: {one.only_b}",
            f"  {test}: p = {one.p:.2g}, {one.p_holm:.2g} after Holm's correction",
        ]
        lines += [
            f"  {each.name} ({each.images} images): recall {each.accuracy[0]:.3f} and {each.accuracy[1]:.3f}, "
            f"{each.points}, p = {each.p_holm:.2g} after Holm's correction"
            for each in one.classes
        ]
    if not all(one.recipes for one in comparisons):
        lines.append(
            "A single seed is not enough to compare recipes: another seed may change the result. To compare several "
            "seeds, join their revisions with commas."
        )
    return "\n".join(lines)
