"""`leaf leak`: one recipe with a leak (copies kept, random split) and without (copies removed, grouped split)."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leaf.dvc_experiments import run_rows
from leaf.errors import LeafError
from leaf.evaluate.cross_validation import fold_settings
from leaf.evaluate.statistics import LEVEL, grouped_bootstrap
from leaf.params import Params
from leaf.revisions import PREDICTIONS, parameters, reader, table

NEGLIGIBLE = 0.01  # an interval around 0 and within this says that the leak is worth about nothing

WAYS = {
    "leaky": {"duplicates": "keep", "grouping": "none"},
    "honest": {"duplicates": "remove", "grouping": "groups"},
}


@dataclass(frozen=True)
class Leak:
    """Accuracy with the leak and without; difference = leaky − honest with its 95 % interval, as shares of images."""

    leaky: float
    honest: float
    low: float
    high: float
    images: tuple[int, int]
    groups: int
    repeats: int

    @property
    def difference(self) -> float:
        return self.leaky - self.honest

    @property
    def sentence(self) -> str:
        """What a person wants to know, in one plain sentence."""
        points, low, high = (100 * value for value in (self.difference, self.low, self.high))
        figures = f"{points:+.1f} points of accuracy (95 %: {low:+.1f} to {high:+.1f})"
        if self.low > 0:
            return f"The leak flatters this recipe: {figures}."
        if self.high < 0:
            return f"The leak does this recipe harm: {figures}."
        if max(-self.low, self.high) <= NEGLIGIBLE:
            return f"The leak is worth about nothing to this recipe: {figures}."
        return f"What the leak is worth to this recipe is not distinguishable from nothing: {figures}."

    def __str__(self) -> str:
        """The sentence and where it comes from."""
        lines = [
            self.sentence,
            f"  leaky:  accuracy {self.leaky:.3f} on {self.images[0]} images, copies kept, random split",
            f"  honest: accuracy {self.honest:.3f} on {self.images[1]} images, copies removed, "
            f"{self.groups} groups whole",
            f"  every image tested once in each of {self.repeats} repeats; interval from a bootstrap over groups"
            + (" and repeats" if self.repeats > 1 else ": how much another seed would change is not in it"),
        ]
        return "\n".join(lines)


def measure_leak(leaky: np.ndarray, honest: np.ndarray, groups: np.ndarray, seed: int = 0) -> Leak:
    """Compare two ways of testing the same N images in R repeats: `leaky` and `honest`, float64 (R, N).

    1 is right, 0 wrong, nan an image that this way leaves out. `groups` (N,): the images of one group are drawn
    together for the interval (percentile bootstrap), for both ways at once, and so are repeats.
    """
    first, second = grouped_bootstrap([leaky, honest], groups, seed)
    low, high = np.nanquantile(first - second, [LEVEL / 2, 1 - LEVEL / 2])
    return Leak(
        float(np.nanmean(leaky)),
        float(np.nanmean(honest)),
        float(low),
        float(high),
        (int((~np.isnan(leaky[0])).sum()), int((~np.isnan(honest[0])).sum())),
        len(np.unique(groups[~np.isnan(honest[0])])),
        len(leaky),
    )


def run_network(row: str | None, settings: Sequence[str], stem: str, repeats: int, force: bool) -> int:
    """Train the network in every fold, both ways, as experiments STEM-leaky-0-fold-0, …; returns dvc's exit status.

    `row` of experiments.yaml and `settings` as for `leaf run`; repeats differ in both seeds.
    """
    chosen, recipe = _common_recipe(row, settings)
    rows = {}
    for repeat in range(repeats):
        seeds = {"seed": recipe.seed + repeat, "split_seed": recipe.split_seed + repeat}
        for way, differing in WAYS.items():
            for fold in range(recipe.folds):
                rows[f"{stem}-{way}-{repeat}-fold-{fold}"] = {**chosen, **differing, **seeds, "fold": fold}
    return run_rows(rows, force, temp=True)


def network_leak(stem: str, repeats: int) -> Leak:
    """Sum up the experiments of `run_network`. Raises LeafError where one is missing."""
    found: dict[str, list[pd.Series]] = {way: [] for way in WAYS}
    folds = parameters(reader(f"{stem}-leaky-0-fold-0"))["folds"]
    for way, rights in found.items():
        for repeat in range(repeats):
            tables = [_tested(f"{stem}-{way}-{repeat}-fold-{fold}") for fold in range(folds)]
            tested = pd.concat(tables).set_index("image")
            if tested.index.has_duplicates:
                raise LeafError(f"{stem}-{way}-{repeat}: an image is tested twice; run all of them again (--force)")
            rights.append(tested["predicted"].eq(tested["label"]).astype(float))
    decisions = table(reader(f"{stem}-honest-0-fold-0"), "data/cleaned/decisions.csv")
    group = decisions.set_index("image")["group"].loc[found["leaky"][0].index.sort_values()]
    leaky, honest = (np.stack([each.reindex(group.index) for each in found[way]]) for way in WAYS)
    return measure_leak(leaky, honest, group.to_numpy())


def frozen_leak(row: str | None, settings: Sequence[str], learner: str, repeats: int) -> tuple[Leak, str]:
    """The leak of a simple learner on frozen features, without DVC; and what the features are, in words."""
    from leaf.evaluate.baselines import cross_validated

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
    """What `fold_settings` gives, of a recipe that leaves alone what differs between the two ways."""
    chosen, recipe = fold_settings(row, settings)
    for key in (*WAYS["leaky"], "fold"):
        if key in chosen:
            raise LeafError(f"-S {key}: `leaf leak` sets it itself; valid: any other key")
    return chosen, recipe


def _tested(revision: str) -> pd.DataFrame:
    predictions = table(reader(revision), PREDICTIONS)
    return predictions[predictions["split"].eq("test")]


def _cleaned(recipe: Params, path: Path) -> tuple[np.ndarray, pd.DataFrame]:
    """The data set as ingest and clean make it, its images in the file `path`: images (N,S,S,3) and decisions."""
    from leaf.clean.clean import Settings, clean
    from leaf.clean.decisions import COLUMNS, TEXT
    from leaf.ingest.folder import read_references
    from leaf.ingest.ingest import ingest
    from leaf.store import read_array, read_table

    if not Path(recipe.dataset).exists():
        raise LeafError(
            f"dataset: {recipe.dataset}: no such file or folder; `dvc repro synthesize` makes the drawn one"
        )
    skip = recipe.unreadable == "skip"
    read = ingest(
        recipe.dataset,
        path,
        recipe.classes,
        recipe.image_size,
        skip,
        ignore=recipe.ignore,
        labels=recipe.labels,
        group_by=recipe.group_by,
        links=recipe.links,
        fit=recipe.fit,
    )
    named = recipe.references
    images = read_array(path)
    settings = replace(Settings.from_params(recipe, read.classes["name"].tolist()), duplicates="remove")
    rulings = read_table("data/overrides.csv", COLUMNS, text=TEXT)
    references = named if named == "auto" else read_references(named, recipe.image_size, recipe.fit)
    return images, clean(images, read.index, references, rulings, settings).decisions


def features_of(recipe: Params, images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, str]:
    """Features of `rows`, float32 (len(rows), D): the backbone's, or colours where its weights are random."""
    if recipe.weights == "random":
        from leaf.evaluate.baselines import joint_histograms

        return joint_histograms(images, rows), "histograms of 512 colours; -S weights=FILE takes a backbone's features"
    from leaf.models.feature_cache import frozen_features

    features = frozen_features(images, rows, recipe.backbone, recipe.weights, recipe.weights_sha256)
    return features, f"features of {recipe.backbone} from {Path(recipe.weights).name}, which do not learn"
