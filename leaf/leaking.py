"""`leaf leak`: the same recipe with copies kept and groups torn apart, and with copies removed and groups whole."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from leaf.comparing import PREDICTIONS, reader, table
from leaf.errors import LeafError
from leaf.folding import folded
from leaf.params import Params
from leaf.running import run_rows
from leaf.scoring.leaks import Leak, leak

WAYS = {
    "leaky": {"duplicates": "keep", "grouping": "none"},
    "honest": {"duplicates": "remove", "grouping": "groups"},
}


def run_network(row: str | None, settings: Sequence[str], stem: str, repeats: int, force: bool) -> int:
    """Train the network in every fold, both ways, as experiments STEM-leaky-0-fold-0, …; returns dvc's exit status.

    `row` of experiments.yaml and `settings` as for `leaf run`; repeats differ in both seeds.
    """
    chosen, recipe = _recipe(row, settings)
    rows = {}
    for repeat in range(repeats):
        seeds = {"seed": recipe.seed + repeat, "split_seed": recipe.split_seed + repeat}
        for way, differing in WAYS.items():
            for fold in range(recipe.folds):
                rows[f"{stem}-{way}-{repeat}-fold-{fold}"] = {**chosen, **differing, **seeds, "fold": fold}
    return run_rows(rows, force, aside=True)


def of_network(stem: str, repeats: int) -> Leak:
    """Sum up the experiments of `run_network`. Raises LeafError where one is missing."""
    found: dict[str, list[pd.Series]] = {way: [] for way in WAYS}
    folds = yaml.safe_load(reader(f"{stem}-leaky-0-fold-0")("params.yaml"))["folds"]
    for way, rights in found.items():
        for repeat in range(repeats):
            tables = [_tested(f"{stem}-{way}-{repeat}-fold-{fold}") for fold in range(folds)]
            tested = pd.concat(tables).set_index("image")
            if tested.index.has_duplicates:
                raise LeafError(f"{stem}-{way}-{repeat}: an image is tested twice; run all of them anew (--force)")
            rights.append(tested["predicted"].eq(tested["label"]).astype(float))
    decisions = table(reader(f"{stem}-honest-0-fold-0"), "data/cleaned/decisions.csv")
    group = decisions.set_index("image")["group"].loc[found["leaky"][0].index.sort_values()]
    leaky, honest = (np.stack([each.reindex(group.index) for each in found[way]]) for way in WAYS)
    return leak(leaky, honest, group.to_numpy())


def of_frozen(row: str | None, settings: Sequence[str], learner: str, repeats: int) -> tuple[Leak, str]:
    """The leak of a simple learner on frozen features, without DVC; and what the features are, in words."""
    from leaf.scoring.frozen import cross_validated

    _, recipe = _recipe(row, settings)
    with tempfile.TemporaryDirectory(prefix="leaf-leak-") as folder:
        images, decisions = _cleaned(recipe, Path(folder) / "images.npy")
        asked = decisions[decisions["kept"].eq(1) | decisions["reason"].isin(["duplicate", "near_duplicate"])]
        features, described = _features(recipe, images, asked["image"].to_numpy())
    labels, groups = asked["label"].to_numpy(), asked["group"].to_numpy()
    kept = asked["kept"].eq(1).to_numpy()
    leaky, honest = (np.full((repeats, len(asked)), np.nan) for _ in WAYS)
    for repeat in range(repeats):
        seed = recipe.split_seed + repeat
        alone = np.arange(len(asked))
        leaky[repeat] = cross_validated(learner, features, labels, alone, recipe.folds, seed)
        honest[repeat, kept] = cross_validated(learner, features[kept], labels[kept], groups[kept], recipe.folds, seed)
    return leak(leaky, honest, groups), described


def _recipe(row: str | None, settings: Sequence[str]) -> tuple[dict[str, Any], Params]:
    """What `folded` gives, of a recipe that leaves alone what differs between the two ways."""
    chosen, recipe = folded(row, settings)
    for key in (*WAYS["leaky"], "fold"):
        if key in chosen:
            raise LeafError(f"-S {key}: `leaf leak` sets it itself; valid: any other key")
    return chosen, recipe


def _tested(revision: str) -> pd.DataFrame:
    predictions = table(reader(revision), PREDICTIONS)
    return predictions[predictions["split"].eq("test")]


def _cleaned(recipe: Params, path: Path) -> tuple[np.ndarray, pd.DataFrame]:
    """The data set as ingest and clean make it, its images in the file `path`: images (N,S,S,3) and decisions."""
    from leaf.reading.ingest import ingest
    from leaf.reading.references import read_references
    from leaf.similarity.cleaning import Settings, clean
    from leaf.similarity.rulings import COLUMNS
    from leaf.store import read_array, read_table

    if not Path(recipe.dataset).exists():
        raise LeafError(
            f"dataset: {recipe.dataset}: no such file or folder; `dvc repro synthesize` makes the drawn one"
        )
    first, second = recipe.classes
    index = ingest(recipe.dataset, path, (first, second), recipe.image_size, recipe.unreadable == "skip").index
    named = recipe.references
    images = read_array(path)
    chosen = {name: getattr(recipe, name) for name in Settings.__dataclass_fields__} | {"duplicates": "remove"}
    rulings = read_table("data/overrides.csv", COLUMNS, text=COLUMNS)
    references = named if named == "auto" else read_references(named, recipe.image_size)
    return images, clean(images, index, references, rulings, Settings(**chosen)).decisions


def _features(recipe: Params, images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, str]:
    """Features of `rows`, float32 (len(rows), D): the backbone's, or colours where its weights are random."""
    if recipe.weights == "random":
        from leaf.colours import joint_histograms

        return joint_histograms(images, rows), "histograms of 512 colours; -S weights=FILE takes a backbone's features"
    from leaf import networks

    features = networks.frozen_features(images, rows, recipe.backbone, recipe.weights, recipe.weights_sha256)
    return features, f"features of {recipe.backbone} from {Path(recipe.weights).name}, which do not learn"
