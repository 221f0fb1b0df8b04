"""What the report is made from: the tables that the stages before it wrote, and the parameters of the run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leaf import store
from leaf.errors import LeafError

_OPTIONAL = {
    "data/cleaned/distances.csv": ["reference", "rank", "image", "distance", "outlier"],
    "data/cleaned/pairs.csv": ["image", "other", "kind", "mse", "transform", "aligned_mse"],
    "data/balanced/index.csv": ["image", "label", "parent", "neighbour", "weight"],
    "data/scored/predictions.csv": ["image", "split", "label", "probability", "predicted"],
    "data/scored/gallery.csv": ["row", "image", "split", "kind"],
}


@dataclass(frozen=True)
class Run:
    """One run's tables. `params` maps dotted keys to values; `files` maps a file's path to its SHA-256; `told` is what
    no table holds, in words: date, commit, duration.

    `images` is (N, H, W, 3) in 0..255; `synthetic_images` (M, H, W, 3) and `heatmaps` (K, h, w) in 0..1 may be empty.
    The optional tables may have no rows; `scores["splits"]["test"]` is None without a test split.
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
    told: Mapping[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """The class names; the first is label 0."""
        return [str(name) for name in self.training["classes"]]

    def labels(self) -> pd.Series:
        """The final label of each image, by image number."""
        return self.decisions.set_index("image")["label"].astype(int)

    def kept(self) -> pd.Series:
        """The numbers of the images that stayed."""
        return self.decisions.loc[self.decisions["kept"] == 1, "image"]


def read_run(root: str | Path, params: Mapping[str, Any]) -> Run:
    """Read the tables under `root`, a project's folder. Raises LeafError where one that is needed is missing."""
    root = Path(root)
    texts = {
        "data/ingested/index.csv": ["source", "group", "split", "hash", "flags"],
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
            raise LeafError(f"{root / name}: not a JSON object; run `dvc repro` again")
        files[name] = store.sha256(root / name)
        return value

    return Run(
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


def rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table by the columns' names."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]
