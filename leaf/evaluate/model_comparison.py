"""Is one run better than another on the same images, or was it chance?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from leaf.clean.groups import components, same_name_pairs
from leaf.errors import LeafError
from leaf.revisions import PREDICTIONS, class_names, reader, table

LEVEL = 0.05
_REPLICATES = 10_000
_CHUNK = 100  # replicates at once: bounds what is held at 100 × groups × seeds × 8 bytes


@dataclass(frozen=True)
class OfClass:
    """One class of a comparison: which of its images either run finds; `p_holm` is corrected for the classes."""

    name: str
    images: int
    recall: tuple[float, float]
    only_a: int
    only_b: int
    p: float
    p_holm: float


@dataclass(frozen=True)
class Comparison:
    """Run `b` against run `a` on the same images. Differences are b − a, as shares of the images."""

    a: str
    b: str
    images: int
    groups: int
    seeds: tuple[int, int]
    accuracy: tuple[float, float]
    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p: float
    p_holm: float
    classes: tuple[OfClass, ...] = ()
    scored: tuple[int, int] = (0, 0)  # images that each run was scored on, where they are not the same

    @property
    def verdict(self) -> Literal["better", "worse", "not distinguishable"]:
        """Better or worse only where the corrected test and the interval agree that it is not chance."""
        if self.p_holm >= LEVEL or self.low <= 0 <= self.high:
            return "not distinguishable"
        return "better" if self.difference > 0 else "worse"

    @property
    def sentence(self) -> str:
        """What a person wants to know, in one plain sentence."""
        points, low, high = (100 * value for value in (self.difference, self.low, self.high))
        figures = f"{points:+.1f} points of accuracy (95 %: {low:+.1f} to {high:+.1f}), p = {self.p_holm:.2g}"
        if self.verdict == "not distinguishable":
            return f"{self.b} and {self.a} are not distinguishable on these {self.images} images: {figures}."
        return f"{self.b} is {self.verdict} than {self.a}: {figures}, on {self.images} images."


def compare(
    names: tuple[str, str],
    right_a: np.ndarray,
    right_b: np.ndarray,
    groups: np.ndarray,
    seed: int = 0,
    by_class: tuple[np.ndarray, Sequence[str]] | None = None,
) -> Comparison:
    """Compare two runs: `right_a` bool (seeds of a, N) says which of N images each training of it got right.

    `groups` (N,): images of one group are drawn together, since what holds for one often holds for all of them.
    `only_a` and `only_b` count the images that one run gets right in a larger share of its seeds than the other; `p`
    is the exact two-sided binomial test that they are as many, which with one seed each is McNemar's exact test (1947).
    `p_holm` is `p` until `holm` corrects it for the number of comparisons. `by_class`, labels int (N,) and the classes'
    names, asks for each class as well.
    """
    mean_a, mean_b = right_a.mean(axis=0), right_b.mean(axis=0)
    only_a, only_b, p = _exact_test(mean_a, mean_b)
    low, high = bootstrap_interval(right_a, right_b, groups, seed)
    return Comparison(
        a=names[0],
        b=names[1],
        images=len(groups),
        groups=len(np.unique(groups)),
        seeds=(len(right_a), len(right_b)),
        accuracy=(float(mean_a.mean()), float(mean_b.mean())),
        difference=float(mean_b.mean() - mean_a.mean()),
        low=low,
        high=high,
        only_a=only_a,
        only_b=only_b,
        p=p,
        p_holm=p,
        classes=_each_class(mean_a, mean_b, *by_class) if by_class else (),
    )


def _exact_test(mean_a: np.ndarray, mean_b: np.ndarray) -> tuple[int, int, float]:
    """Images that either run gets right in a larger share of its seeds, and the p of their being as many."""
    only_a, only_b = int((mean_a > mean_b).sum()), int((mean_b > mean_a).sum())
    return only_a, only_b, float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _each_class(
    mean_a: np.ndarray, mean_b: np.ndarray, labels: np.ndarray, names: Sequence[str]
) -> tuple[OfClass, ...]:
    rows = []
    for label, name in enumerate(names):
        a, b = mean_a[labels == label], mean_b[labels == label]
        if len(a):
            only_a, only_b, p = _exact_test(a, b)
            rows.append(OfClass(name, len(a), (float(a.mean()), float(b.mean())), only_a, only_b, p, p))
    return tuple(holm(rows))


def bootstrap_interval(
    right_a: np.ndarray, right_b: np.ndarray, groups: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of b's accuracy − a's: groups are drawn anew, the same for both runs, and seeds.

    Arguments as for `compare`. With one seed a run, the interval knows nothing of how much another seed would change.
    """
    a, b = _bootstrap([right_a, right_b], groups, seed)
    return _percentiles(b - a)


def accuracy_interval(right: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the accuracy of `right` bool (seeds, N): `groups` (N,) and seeds are drawn anew.

    Images of one group tell less than as many of different ones, which Wilson's interval does not know.
    """
    return _percentiles(*_bootstrap([right], groups, seed))


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _bootstrap(runs: Sequence[np.ndarray], groups: np.ndarray, seed: int) -> list[np.ndarray]:
    """The accuracy of each of `runs`, bool (its seeds, N), in each replicate (R,): groups drawn anew, then seeds."""
    random = np.random.default_rng(seed)
    _, place = np.unique(groups, return_inverse=True)
    sizes = np.bincount(place)
    # (groups, seeds) each: how many images of a group each training got right
    sums = [np.stack([np.bincount(place, weights=row) for row in right], axis=1) for right in runs]
    shares: list[list[np.ndarray]] = [[] for _ in runs]
    for start in range(0, _REPLICATES, _CHUNK):
        drawn = random.integers(len(sizes), size=(min(_CHUNK, _REPLICATES - start), len(sizes)))
        for part, kept in zip(sums, shares, strict=True):
            kept.append(_redrawn(part, drawn, random) / sizes[drawn].sum(axis=1))
    return [np.concatenate(each) for each in shares]


def _redrawn(sums: np.ndarray, drawn: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Right images in each replicate (R,) of `drawn` groups (R, G), over seeds that are drawn anew as well."""
    seeds = sums.shape[1]
    of_seed = sums[drawn].sum(axis=1)
    return np.take_along_axis(of_seed, random.integers(seeds, size=(len(drawn), seeds)), axis=1).mean(axis=1)


Tested = TypeVar("Tested", Comparison, OfClass)


def holm(comparisons: Sequence[Tested]) -> list[Tested]:
    """The comparisons with `p_holm` corrected for their number (Holm 1979): all at once are wrong at most 5 in 100."""
    ordered = sorted(range(len(comparisons)), key=lambda index: comparisons[index].p)
    corrected = [0.0] * len(comparisons)
    largest = 0.0
    for rank, index in enumerate(ordered):
        largest = max(largest, min(1.0, comparisons[index].p * (len(comparisons) - rank)))
        corrected[index] = largest
    return [replace(one, p_holm=value) for one, value in zip(comparisons, corrected, strict=True)]


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
