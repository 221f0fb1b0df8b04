"""Load a run for the review page."""

import getpass
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leaf import params
from leaf.clean.same_photo import descriptors
from leaf.errors import LeafError
from leaf.evaluate import out_of_distribution as ood
from leaf.evaluate.baselines import joint_histograms
from leaf.ingest.decode import UnreadableError
from leaf.ingest.sandbox import read_file, read_image
from leaf.review import queue
from leaf.review.app import Review
from leaf.revisions import PREDICTIONS, probabilities, reader, table
from leaf.store import read_array, read_classes, read_json, read_table
from leaf.why import explain

LARGEST_SIDE = 2048  # pixels
_BLOCK = 256


def load_review(revisions: Sequence[str], folder: Path = Path()) -> Review:
    """Load the run in `folder` with the held-out predictions of `revisions`, and rank the images to review.

    Stages after clean are optional. Raises LeafError if clean has not run.
    """
    choices = params.load(folder / params.PARAMS_FILE)
    images = read_array(folder / "data/ingested/images.npy")
    index = read_table(
        folder / "data/ingested/index.csv", text=("source", "group", "split", "hash", "file_hash", "flags")
    )
    decisions = read_table(folder / "data/cleaned/decisions.csv", text=("reason", "reference", "ruling"))
    pairs = read_table(folder / "data/cleaned/pairs.csv", text=("kind", "transform"))
    if not len(images) == len(index) == len(decisions):
        raise LeafError(f"data/cleaned: {len(decisions)} decisions for {len(images)} images. Run `dvc repro`.")
    points = descriptors(images, np.arange(len(images)))
    names = read_classes(folder)
    kept = decisions["kept"].eq(1).to_numpy()
    held_out = queue.assess_labels(
        decisions["label"].to_numpy(), _probabilities(images, index, decisions, points, revisions, len(names))
    )
    synthetic = _optional(folder / "data/balanced/index.csv")
    reached = queue.reach(index["hash"].to_numpy(), kept, synthetic)
    run_file = folder / "models/run.json"
    run = read_json(run_file)["model_sha256"] if run_file.exists() else ""
    splits = _optional(folder / "data/split/splits.csv")
    split = pd.Series("", index=range(len(index)))
    if splits is not None:
        split[splits["image"]] = splits["split"].to_numpy()
    return Review(
        folder=folder,
        classes=names,
        images=images,
        index=index,
        decisions=decisions,
        split=split.to_numpy(object),
        cases=queue.cases(index, decisions, pairs, held_out, _unknown(folder, images, kept, run), reached, names),
        held_out=held_out,
        points=points,
        explain=lambda image: explain(str(image), folder),
        original=lambda image: original(folder / choices.dataset, dict(index.iloc[image].items())),
        who=_git("user.name") or getpass.getuser(),
        run=run[:12],
    )


def original(dataset: Path, row: Mapping[Any, Any]) -> np.ndarray | None:
    """Return the file of an index row, decoded in the sandbox, uint8 (H, W, 3) with sides of at most LARGEST_SIDE.

    Return None if the data set is not a folder. Raises LeafError for a file that cannot be decoded.
    """
    path = dataset / str(row["source"])
    if not dataset.is_dir() or not path.is_file() or "width" not in row:
        return None
    width, height = int(row["width"]), int(row["height"])
    side = min(LARGEST_SIDE, max(width, height))
    try:
        square = read_image(read_file(path), side, "pad").pixels
    except UnreadableError as error:
        raise LeafError(f"{path}: {error}") from None
    wide, high = (max(1, round(side * each / max(width, height))) for each in (width, height))
    left, top = (side - wide) // 2, (side - high) // 2
    return square[top : top + high, left : left + wide]


def _probabilities(
    images: np.ndarray,
    index: pd.DataFrame,
    decisions: pd.DataFrame,
    points: np.ndarray,
    revisions: Sequence[str],
    classes: int,
) -> np.ndarray:
    """Return held-out probabilities (N, classes): the mean of the models, or else a regression on color features."""
    sums, predicted_count = np.zeros((len(index), classes)), np.zeros(len(index))
    for revision in revisions:
        read = reader(revision)
        try:
            predicted = table(read, PREDICTIONS)
        except (LeafError, FileNotFoundError):
            if revision == "workspace":
                continue  # no model yet
            raise
        hashes = table(read, "data/ingested/index.csv")["hash"].to_numpy()
        rows = predicted["image"].to_numpy()
        if rows.max(initial=-1) >= len(index) or (hashes[rows] != index["hash"].to_numpy()[rows]).any():
            raise LeafError(f"{revision}: different images. Use runs of the same data set.")
        found = probabilities(read)
        if found.shape[1] != classes:
            raise LeafError(f"{revision}: {found.shape[1]} classes, expected {classes}. Use runs of the same data set.")
        np.add.at(sums, rows, found)
        np.add.at(predicted_count, rows, 1)
    result = np.where(predicted_count[:, None] > 0, sums / np.maximum(predicted_count, 1)[:, None], np.nan)
    kept = np.flatnonzero(decisions["kept"].eq(1))
    rest = kept[predicted_count[kept] == 0]
    if len(rest):
        appearance = np.concatenate([points[kept], joint_histograms(images, kept)], axis=1)
        labels = decisions["label"].to_numpy()[kept]
        estimated = queue.class_probabilities(appearance, labels, decisions["group"].to_numpy()[kept])
        filled = np.zeros((len(kept), classes))
        filled[:, np.unique(labels)] = estimated
        result[rest] = filled[predicted_count[kept] == 0]
    return result


def _unknown(folder: Path, images: np.ndarray, kept: np.ndarray, run: str) -> np.ndarray:
    """Return which kept images are out-of-distribution by pixel statistics, bool (N,)."""
    unknown = np.zeros(len(images), bool)
    path = folder / "data/scored/ood.npz"
    if path.exists():
        detector = ood.read(path, run)
        rows = np.flatnonzero(kept)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            unknown[block] = ~detector.pixels_in_distribution(images[block])
    return unknown


def _optional(path: Path) -> pd.DataFrame | None:
    return read_table(path) if path.exists() else None


def _git(key: str) -> str:
    return subprocess.run(["git", "config", key], capture_output=True, text=True).stdout.strip()
