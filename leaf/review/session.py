"""`leaf review`: a page on which a person rules on single images, the most valuable look first."""

import getpass
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from leaf import params
from leaf.clean.same_photo import descriptors
from leaf.errors import LeafError
from leaf.evaluate import out_of_distribution as ood
from leaf.evaluate.baselines import joint_histograms
from leaf.review import queue
from leaf.review.app import Review
from leaf.revisions import PREDICTIONS, probabilities, reader, table
from leaf.store import read_array, read_classes, read_json, read_table
from leaf.why import explain

LARGEST_SIDE = 2048  # pixels of an original that is sent to the page
_BLOCK = 256


def load_review(revisions: Sequence[str], folder: Path = Path()) -> Review:
    """Read the run in the project's `folder`, and the held-out predictions of `revisions`; find the cases.

    Stages after clean may be missing: their questions are then not asked. Raises LeafError where clean has not run.
    """
    choices = params.load(folder / params.PARAMS_FILE)
    images = read_array(folder / "data/ingested/images.npy")
    index = read_table(
        folder / "data/ingested/index.csv", text=("source", "group", "split", "hash", "file_hash", "flags")
    )
    decisions = read_table(folder / "data/cleaned/decisions.csv", text=("reason", "reference", "ruling"))
    pairs = read_table(folder / "data/cleaned/pairs.csv", text=("kind", "transform"))
    if not len(images) == len(index) == len(decisions):
        raise LeafError(f"data/cleaned: {len(decisions)} decisions for {len(images)} images; run `dvc repro`")
    points = descriptors(images, np.arange(len(images)))
    names = read_classes(folder)
    kept = decisions["kept"].eq(1).to_numpy()
    held_out = queue.held_out(
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
        original=lambda image: original(folder / choices.dataset, str(index["source"].iat[image])),
        who=_git("user.name") or getpass.getuser(),
        run=run[:12],
    )


def original(dataset: Path, source: str) -> Image.Image | None:
    """The photograph as large as it came, at most LARGEST_SIDE; None where the data set is no folder of files."""
    if not dataset.is_dir() or not (dataset / source).is_file():
        return None
    with Image.open(dataset / source) as image:
        image.draft("RGB", (LARGEST_SIDE, LARGEST_SIDE))
        turned = ImageOps.exif_transpose(image)
        turned.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        return turned.convert("RGB")


def _probabilities(
    images: np.ndarray,
    index: pd.DataFrame,
    decisions: pd.DataFrame,
    points: np.ndarray,
    revisions: Sequence[str],
    classes: int,
) -> np.ndarray:
    """Held-out probabilities (N, classes): the networks' mean where one was asked, else by a regression on looks."""
    sums, asked = np.zeros((len(index), classes)), np.zeros(len(index))
    for revision in revisions:
        read = reader(revision)
        try:
            predicted = table(read, PREDICTIONS)
        except (LeafError, FileNotFoundError):
            if revision == "workspace":
                continue  # nothing was trained yet
            raise
        hashes = table(read, "data/ingested/index.csv")["hash"].to_numpy()
        rows = predicted["image"].to_numpy()
        if rows.max(initial=-1) >= len(index) or (hashes[rows] != index["hash"].to_numpy()[rows]).any():
            raise LeafError(f"{revision}: other images than here; valid: runs of one data set")
        found = probabilities(read)
        if found.shape[1] != classes:
            raise LeafError(f"{revision}: {found.shape[1]} classes, {classes} here; valid: runs of one data set")
        np.add.at(sums, rows, found)
        np.add.at(asked, rows, 1)
    result = np.where(asked[:, None] > 0, sums / np.maximum(asked, 1)[:, None], np.nan)
    kept = np.flatnonzero(decisions["kept"].eq(1))
    rest = kept[asked[kept] == 0]
    if len(rest):
        looks = np.concatenate([points[kept], joint_histograms(images, kept)], axis=1)
        labels = decisions["label"].to_numpy()[kept]
        guessed = queue.cross_validated(looks, labels, decisions["group"].to_numpy()[kept])
        filled = np.zeros((len(kept), classes))
        filled[:, np.unique(labels)] = guessed
        result[rest] = filled[asked[kept] == 0]
    return result


def _unknown(folder: Path, images: np.ndarray, kept: np.ndarray, run: str) -> np.ndarray:
    """Which kept images the model does not know by their looks, bool (N,); none where it was not trained."""
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
