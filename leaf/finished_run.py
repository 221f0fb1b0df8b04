"""Read the tables, arrays and scores of a finished run."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leaf import store
from leaf.clean.groups import components
from leaf.errors import LeafError

COPIES = ("exact", "near", "turned")  # kinds of pairs that count as copies
_OPTIONAL = {
    "data/cleaned/distances.csv": ["reference", "rank", "image", "distance", "outlier"],
    "data/cleaned/pairs.csv": ["image", "other", "kind", "mse", "transform", "aligned_mse"],
    "data/balanced/index.csv": ["image", "label", "parent", "neighbour", "weight"],
    "data/scored/predictions.csv": ["image", "split", "label", "probability", "predicted"],
    "data/scored/gallery.csv": ["row", "image", "split", "kind"],
}


@dataclass(frozen=True)
class Run:
    """The tables of one run. Optional tables and arrays can be empty.

    Attributes:
        params: values by dotted key.
        images: (N, H, W, 3), 0..255.
        scores: scores.json; `scores["splits"]["test"]` is None if there is no test split.
        synthetic_images: (M, H, W, 3), 0..255.
        heatmaps: (K, h, w), 0..1.
        files: SHA-256 of each table, by path.
        facts: date, commit and duration, which are not in any table.
    """

    params: Mapping[str, Any]
    images: np.ndarray
    index: pd.DataFrame
    decisions: pd.DataFrame
    splits: pd.DataFrame
    history: pd.DataFrame
    training: Mapping[str, Any]
    scores: Mapping[str, Any]
    distances: pd.DataFrame
    pairs: pd.DataFrame
    synthetic: pd.DataFrame
    predictions: pd.DataFrame
    gallery: pd.DataFrame
    synthetic_images: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1, 3), np.uint8))
    heatmaps: np.ndarray = field(default_factory=lambda: np.zeros((0, 1, 1), np.float32))
    files: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """Class names in label order."""
        return [str(name) for name in self.training["classes"]]

    @property
    def names(self) -> list[str]:
        """Display names of the classes in label order: `Apple___Black_rot` becomes `Apple: Black rot`."""
        return display_names(self.classes)

    def display(self, name: str) -> str:
        """Return the display name of a class."""
        return dict(zip(self.classes, self.names, strict=True)).get(name, name)

    def labels(self) -> pd.Series:
        """Return the final labels, indexed by image number."""
        return self.decisions.set_index("image")["label"].astype(int)

    def kept(self) -> pd.Series:
        """Return the numbers of the kept images."""
        return self.decisions.loc[self.decisions["kept"] == 1, "image"]

    def copies(self) -> list[list[int]]:
        """Return the sets of exact and near duplicates, without outliers, each as ascending image numbers."""
        outliers = set(self.decisions.loc[self.decisions["reason"] == "outlier", "image"])
        pairs = self.pairs[self.pairs["kind"].isin(COPIES)]
        pairs = pairs[~pairs["image"].isin(outliers) & ~pairs["other"].isin(outliers)]
        joined = pairs[["image", "other"]].to_numpy(np.int64)
        images = pd.Series(np.unique(joined))
        return [list(each) for _, each in images.groupby(components(len(self.decisions), joined)[images])]

    def conflicting_copies(self) -> list[list[int]]:
        """Return the sets of copies with different final labels.

        Images removed by a manual decision or because of conflicting labels are ignored.
        """
        decided = self.decisions.loc[self.decisions["reason"].isin(["conflict", "override"])]
        removed = set(decided.loc[decided["kept"] != 1, "image"])
        labels = self.labels()
        return [each for each in self.copies() if labels[[one for one in each if one not in removed]].nunique() > 1]


def read_run(root: str | Path, params: Mapping[str, Any]) -> Run:
    """Read the tables of the project in `root`. Raises LeafError if a required table is missing or damaged."""
    root = Path(root)
    texts = {
        "data/ingested/index.csv": ["source", "group", "split", "hash", "flags", "site", "crop", "camera", "date"],
        "data/cleaned/decisions.csv": ["reason", "reference"],
        "data/cleaned/distances.csv": ["reference"],
        "data/cleaned/pairs.csv": ["kind", "transform"],
    }
    files: dict[str, str] = {}

    def table(name: str, *columns: str) -> pd.DataFrame:
        if name in _OPTIONAL and not (root / name).exists():
            return pd.DataFrame(columns=_OPTIONAL[name])
        read = store.read_table(root / name, columns or _OPTIONAL.get(name, ()), texts.get(name, ()))
        files[name] = store.sha256(root / name)
        return read

    def array(name: str, empty: tuple[int, ...]) -> np.ndarray:
        return store.read_array(root / name) if (root / name).exists() else np.zeros(empty, np.float32)

    def mapping(name: str) -> dict[str, Any]:
        value = store.read_json(root / name)
        if not isinstance(value, dict):
            raise LeafError(f"{root / name}: not a JSON object. Run `dvc repro` or `dvc checkout`.")
        files[name] = store.sha256(root / name)
        return value

    run = Run(
        params=params,
        images=store.read_array(root / "data/ingested/images.npy"),
        index=table("data/ingested/index.csv", "image", "source", "label"),
        decisions=table("data/cleaned/decisions.csv", "image", "label", "kept", "reason"),
        distances=table("data/cleaned/distances.csv"),
        pairs=table("data/cleaned/pairs.csv"),
        splits=table("data/split/splits.csv", "image", "split"),
        synthetic=table("data/balanced/index.csv"),
        synthetic_images=array("data/balanced/images.npy", (0, 1, 1, 3)),
        history=table("models/history.csv", "epoch"),
        training=mapping("models/run.json"),
        scores=mapping("data/scored/scores.json"),
        predictions=table("data/scored/predictions.csv"),
        gallery=table("data/scored/gallery.csv"),
        heatmaps=array("data/scored/heatmaps.npy", (0, 1, 1)),
        files=files,
    )
    numbers = np.arange(len(run.images))
    if not all(np.array_equal(each["image"], numbers) for each in (run.index, run.decisions)):
        raise LeafError(f"{root}: images.npy, index.csv and decisions.csv contain different images. Run `dvc repro`.")
    return run


def display_names(classes: Sequence[str]) -> list[str]:
    """Replace separators in class names, unless a name would become empty or equal to another."""
    names = [re.sub(r"[_\s]+", " ", re.sub(r"_{2,}", ": ", name)).strip(" :") for name in classes]
    return names if all(names) and len(set(names)) == len(names) else list(classes)
