"""`leaf leak`: compare the accuracy of a recipe with leakage (copies kept, random split) and without leakage."""

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leaf.dvc_experiments import run_rows
from leaf.errors import LeafError
from leaf.evaluate.baselines import cross_validated, joint_histograms
from leaf.evaluate.cross_validation import fold_settings
from leaf.evaluate.statistics import LEVEL, grouped_bootstrap
from leaf.params import Params
from leaf.revisions import PREDICTIONS, parameters, reader, table

NEGLIGIBLE = 0.01  # leakage has almost no effect if the whole interval is within this distance of 0

WAYS = {
    "leaky": {"duplicates": "keep", "grouping": "none"},
    "honest": {"duplicates": "remove", "grouping": "groups"},
}


@dataclass(frozen=True)
class Leak:
    """Accuracy with and without leakage."""

    leaky: float
    honest: float
    low: float  # 95% interval of leaky − honest
    high: float
    images: tuple[int, int]  # number of images tested with and without leakage
    groups: int  # number of groups tested without leakage
    repeats: int  # number of times that all folds are run

    @property
    def difference(self) -> float:
        return self.leaky - self.honest

    @property
    def effect(self) -> str:
        """The effect of leakage in a few words."""
        if self.low > 0:
            return "raises the accuracy"
        if self.high < 0:
            return "lowers the accuracy"
        return "has almost no effect" if max(-self.low, self.high) <= NEGLIGIBLE else "has no distinguishable effect"

    @property
    def sentence(self) -> str:
        """The effect of leakage in one sentence."""
        points, low, high = (100 * value for value in (self.difference, self.low, self.high))
        figures = f"{points:+.1f} points of accuracy (95% CI {low:+.1f} to {high:+.1f})"
        return f"For this recipe, leakage {self.effect}: {figures}."

    def __str__(self) -> str:
        """Return the sentence and the figures that it is based on."""
        seeds = " and repeats" if self.repeats > 1 else " and does not include variation between seeds"
        lines = [
            self.sentence,
            f"  leaky:  accuracy {self.leaky:.3f} on {self.images[0]} images, copies kept, random split",
            f"  honest: accuracy {self.honest:.3f} on {self.images[1]} images, copies removed, "
            f"{self.groups} groups kept together",
            f"  repeats: {self.repeats}; each tests every image once; the interval is from a bootstrap over groups",
        ]
        return "\n".join(lines) + seeds


def measure_leak(leaky: np.ndarray, honest: np.ndarray, groups: np.ndarray) -> Leak:
    """Compare results with and without leakage, float64 (R, N) for R repeats on N images.

    A result is 1 if the image is classified correctly, 0 if not, and nan if it is not tested. The interval is a
    percentile bootstrap that resamples `groups` (N,) and repeats in the same way with and without leakage.
    """
    first, second = grouped_bootstrap([leaky, honest], groups)
    low, high = np.nanquantile(first - second, [LEVEL / 2, 1 - LEVEL / 2]).tolist()
    tested = [~np.isnan(results[0]) for results in (leaky, honest)]
    means = float(np.nanmean(leaky)), float(np.nanmean(honest))
    images = int(tested[0].sum()), int(tested[1].sum())
    return Leak(*means, low, high, images, len(np.unique(groups[tested[1]])), len(leaky))


def run_network(row: str | None, settings: Sequence[str], stem: str, repeats: int, force: bool) -> int:
    """Train the network in every fold, with and without leakage, as the experiments STEM-leaky-0-fold-0, …

    `row` and `settings` are as for `leaf run`. Each repeat has its own seeds. Return DVC's exit status.
    """
    chosen, recipe = _common_recipe(row, settings)
    rows = {}
    for repeat, (way, differing), fold in itertools.product(range(repeats), WAYS.items(), range(recipe.folds)):
        seeds = {"seed": recipe.seed + repeat, "split_seed": recipe.split_seed + repeat}
        rows[f"{stem}-{way}-{repeat}-fold-{fold}"] = {**chosen, **differing, **seeds, "fold": fold}
    return run_rows(rows, force, temp=True)


def network_leak(stem: str, repeats: int) -> Leak:
    """Summarize the experiments of `run_network`; raise LeafError if one is missing."""
    found: dict[str, list[pd.Series]] = {way: [] for way in WAYS}
    folds = parameters(reader(f"{stem}-leaky-0-fold-0"))["folds"]
    for way, rights in found.items():
        for repeat in range(repeats):
            tables = [table(reader(f"{stem}-{way}-{repeat}-fold-{fold}"), PREDICTIONS) for fold in range(folds)]
            tested = pd.concat(each[each["split"].eq("test")] for each in tables).set_index("image")
            if tested.index.has_duplicates:
                raise LeafError(
                    f"{stem}-{way}-{repeat}: an image was tested twice. Run all experiments again with --force."
                )
            rights.append(tested["predicted"].eq(tested["label"]).astype(float))
    decisions = table(reader(f"{stem}-honest-0-fold-0"), "data/cleaned/decisions.csv")
    group = decisions.set_index("image")["group"].loc[found["leaky"][0].index.sort_values()]
    leaky, honest = (np.stack([each.reindex(group.index) for each in found[way]]) for way in WAYS)
    return measure_leak(leaky, honest, group.to_numpy())


def frozen_leak(row: str | None, settings: Sequence[str], learner: str, repeats: int) -> tuple[Leak, str]:
    """Measure leakage with a simple learner, without DVC; return the result and a description of the features."""
    _, recipe = _common_recipe(row, settings)
    with tempfile.TemporaryDirectory(prefix="leaf-leak-") as folder:
        images, decisions = _cleaned(recipe, Path(folder) / "images.npy")
        chosen = decisions[decisions["kept"].eq(1) | decisions["reason"].isin(["duplicate", "near_duplicate"])]
        features, described = features_of(recipe, images, chosen["image"].to_numpy())
    labels, groups = chosen["label"].to_numpy(), chosen["group"].to_numpy()
    kept = chosen["kept"].eq(1).to_numpy()
    leaky, honest = (np.full((repeats, len(chosen)), np.nan) for _ in WAYS)
    for repeat in range(repeats):
        seed = recipe.split_seed + repeat
        alone = np.arange(len(chosen))
        leaky[repeat] = cross_validated(learner, features, labels, alone, recipe.folds, seed)
        honest[repeat, kept] = cross_validated(learner, features[kept], labels[kept], groups[kept], recipe.folds, seed)
    return measure_leak(leaky, honest, groups), described


def _common_recipe(row: str | None, settings: Sequence[str]) -> tuple[dict[str, Any], Params]:
    """Return the recipe's `fold_settings`; raise LeafError if it sets a parameter that `leaf leak` varies."""
    chosen, recipe = fold_settings(row, settings)
    for key in (*WAYS["leaky"], "fold"):
        if key in chosen:
            raise LeafError(f"{key}: set by `leaf leak`. Remove it from the row and the -S options.")
    return chosen, recipe


def _cleaned(recipe: Params, path: Path) -> tuple[np.ndarray, pd.DataFrame]:
    """Run `ingest` and `clean`; write the images to `path` and return them, (N, S, S, 3), with the decisions."""
    from leaf.clean.clean import clean
    from leaf.clean.decisions import COLUMNS, TEXT
    from leaf.edited_tables import read_edited_table
    from leaf.ingest.ingest import ingest, reading_options
    from leaf.ingest.source import read_references
    from leaf.store import read_array

    if not Path(recipe.dataset).exists():
        raise LeafError(
            f"dataset: {recipe.dataset}: no such file or folder. Use an .npz file or a folder of images. To create the "
            "demo data set, run `dvc repro synthesize`."
        )
    skip, options = recipe.unreadable == "skip", reading_options(recipe)
    read = ingest(recipe.dataset, path, recipe.classes, recipe.image_size, skip, fit=recipe.fit, **options)
    images, named = read_array(path), recipe.references
    params = recipe.model_copy(update={"duplicates": "remove"})
    overrides = read_edited_table("data/overrides.csv", COLUMNS, TEXT)
    references = named if named == "auto" else read_references(named, recipe.image_size, recipe.fit)
    return images, clean(images, read.index, references, overrides, params, read.classes["name"].tolist()).decisions


def features_of(recipe: Params, images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the backbone's features for `rows` of `images`, float32 (len(rows), D), and a description of them.

    If the weights are random, color histograms are used as features.
    """
    if recipe.weights == "random":
        return joint_histograms(images, rows), "histograms of 512 colors (for backbone features, set -S weights=FILE)"
    from leaf.models.prediction import frozen_features

    features = frozen_features(images, rows, recipe.backbone, recipe.weights, recipe.weights_sha256)
    return features, f"features of {recipe.backbone} with frozen weights {Path(recipe.weights).name}"
