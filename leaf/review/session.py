"""Load a run and rank its images for the review pages."""

import getpass
import subprocess
from collections.abc import Sequence
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
from leaf.ingest.folder_source import UnlabelledError
from leaf.ingest.ingest import survey, write_unlabelled
from leaf.ingest.sandbox import read_file, read_image
from leaf.ingest.unlabelled import NewImages
from leaf.models.feature_cache import cached
from leaf.models.onnx_inference import OnnxNetwork
from leaf.review import queue
from leaf.review.active_learning import reduce_features
from leaf.review.app import Review
from leaf.review.labelling import Labelling
from leaf.revisions import PREDICTIONS, probabilities, reader, table
from leaf.store import read_array, read_classes, read_json, read_table, sha256
from leaf.why import explain

LARGEST_SIDE = 2048  # maximum side of an original image on the page, in pixels
UNLABELLED = "data/ingested/unlabelled"  # path without the suffix .npy or .csv
_BLOCK = 256
_TEXT = ("source", "group", "split", "hash", "file_hash", "flags", "taken")


def load_review(revisions: Sequence[str], folder: Path = Path()) -> Review:
    """Load the run in `folder` with the held-out predictions of `revisions`, and rank the images to review.

    Raises LeafError if `clean` has not run. Later stages are optional.
    """
    choices = params.load(folder / params.PARAMS_FILE)
    images, index, decisions = _cleaned(folder)
    pairs = read_table(folder / "data/cleaned/pairs.csv", ("image", "other", "kind"), ("kind", "transform"))
    names = read_classes(folder)
    kept = decisions["kept"].eq(1).to_numpy()
    probabilities = _probabilities(images, index, decisions, revisions, len(names), choices, folder)
    held_out = queue.assess_labels(decisions["label"].to_numpy(), probabilities)
    reached = queue.reach(index["hash"].to_numpy(), kept, _optional(folder / "data/balanced/index.csv"))
    run = _run(folder)
    unknown = _unlike(folder, images, np.flatnonzero(kept), run)
    return Review(
        folder=folder,
        classes=names,
        images=images,
        index=index,
        decisions=decisions,
        split=_split(folder, len(index)),
        cases=queue.cases(index, decisions, pairs, held_out, unknown, reached, names),
        own=held_out.own,
        points=descriptors(images, np.arange(len(images))),
        explain=lambda image: explain(str(image), folder),
        original=lambda image: original(folder / choices.dataset, index.iloc[image], folder),
        who=_author(),
        run=run[:12],
    )


def load_labelling(folder: Path = Path()) -> Labelling:
    """Load and rank the project's unlabeled images. Raises LeafError if there are none."""
    choices = params.load(folder / params.PARAMS_FILE)
    if not (folder / f"{UNLABELLED}.csv").exists():
        _ingest_unlabelled(choices, folder)
    index = read_table(folder / f"{UNLABELLED}.csv", text=_TEXT)
    images = read_array(folder / f"{UNLABELLED}.npy")
    if not len(index) == len(images) > 0:
        raise LeafError(
            f"{UNLABELLED}.csv: no unlabeled images. Add some to the folder {choices.unlabelled} (key "
            "`unlabelled`) and run `dvc repro ingest`."
        )
    new = image_features(images, np.arange(len(images)), choices, folder)
    names, kept, old = list(choices.classes), np.empty(0, np.int64), new[:0]
    labels, split = kept, np.empty(0, object)
    if (folder / "data/cleaned/decisions.csv").exists():
        names = read_classes(folder)
        labelled, known, decisions = _cleaned(folder)
        kept = np.flatnonzero(decisions["kept"].eq(1))
        old = image_features(labelled, kept, choices, folder)
        labels, split = decisions["label"].to_numpy()[kept], _split(folder, len(known))[kept]
    features = reduce_features(np.concatenate([old, new]))
    part = features[: len(kept)]
    validation = split == "validation"
    train = ~validation & (split != "test")
    run = _run(folder)
    return Labelling(
        folder=folder,
        classes=names,
        images=images,
        index=index,
        features=features[len(kept) :],
        known=(part[train], labels[train]),
        validation=(part[validation], labels[validation]),
        unlike=_unlike(folder, images, np.arange(len(images)), run),
        original=lambda image: original(folder / choices.dataset, index.iloc[image], folder),
        who=_author(),
        run=run[:12],
    )


def _ingest_unlabelled(choices: params.Params, folder: Path) -> None:
    """Ingest the images of a data set that has no labels, which `dvc repro` rejects."""
    dataset = folder / choices.dataset
    try:
        if choices.classes != "auto" and dataset.is_dir():
            survey(dataset, choices.classes, labels=folder / choices.labels, columns=choices.columns.model_dump())
    except UnlabelledError as error:
        files = {file: dataset / file for file in error.files}
        size, fit = choices.image_size, choices.fit
        write_unlabelled(NewImages(files), folder / f"{UNLABELLED}.npy", size, fit, None)
        return
    raise LeafError(f"{UNLABELLED}.csv: no such file. Run `dvc repro ingest`.")


def original(dataset: Path, row: Any, folder: Path = Path()) -> np.ndarray | None:
    """Decode the original image of an index row in the sandbox: uint8 (H, W, 3), sides at most LARGEST_SIDE.

    The file is looked up in `dataset`, then in `folder`. Return None if there is no file. Raises LeafError if the file
    cannot be decoded.
    """
    paths = (dataset / row["source"], folder / row["source"])
    path = next((each for each in paths if dataset.is_dir() and each.is_file()), None)
    if path is None:
        return None
    sides = int(row["width"]), int(row["height"])
    side = min(LARGEST_SIDE, max(sides))
    try:
        square = read_image(read_file(path), side, "pad").pixels
    except UnreadableError as error:
        raise LeafError(f"{path}: {error}") from None
    wide, high = (max(1, round(side * each / max(sides))) for each in sides)
    left, top = (side - wide) // 2, (side - high) // 2
    return square[top : top + high, left : left + wide]


def image_features(images: np.ndarray, rows: np.ndarray, choices: params.Params, folder: Path = Path()) -> np.ndarray:
    """Return features, float32 (M, D), of the `images` (N, S, S, 3), in 0..255, with the numbers `rows`, int (M,).

    The features come from the trained model in `folder` or, before training, from the pretrained backbone in `choices`.
    Without pretrained weights, the features describe colors and coarse shape.
    """
    model = folder / "models/model.onnx"
    if model.is_file() and model.stat().st_size:  # the file is empty if ONNX cannot represent the model
        network = OnnxNetwork(model)
        if network.image_size == images.shape[1]:
            return cached(sha256(model), network.features, images, rows, lambda batch: network.predict(batch)[1])
    if choices.weights != "random":
        from leaf.models.prediction import frozen_features

        return frozen_features(images, rows, choices.backbone, choices.weights, choices.weights_sha256)
    return np.concatenate([descriptors(images, rows), joint_histograms(images, rows)], axis=1)


def _cleaned(folder: Path) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Return the labeled images, data/ingested/index.csv and data/cleaned/decisions.csv."""
    images = read_array(folder / "data/ingested/images.npy")
    index = read_table(folder / "data/ingested/index.csv", text=_TEXT)
    decisions = read_table(folder / "data/cleaned/decisions.csv", text=("reason", "reference", "ruling"))
    if not len(images) == len(index) == len(decisions):
        raise LeafError(f"data/cleaned: {len(decisions)} decisions for {len(images)} images. Run `dvc repro`.")
    return images, index, decisions


def _split(folder: Path, count: int) -> np.ndarray:
    """Return the split of each image, str (N,), or "" for images in no split."""
    split = np.full(count, "", object)
    splits = _optional(folder / "data/split/splits.csv")
    if splits is not None:
        split[splits["image"]] = splits["split"]
    return split


def _probabilities(
    images: np.ndarray,
    index: pd.DataFrame,
    decisions: pd.DataFrame,
    revisions: Sequence[str],
    classes: int,
    choices: params.Params,
    folder: Path,
) -> np.ndarray:
    """Return held-out probabilities, float64 (N, classes), nan for removed images.

    The probabilities are averaged over the models that predict the image. Images without a model's prediction get
    out-of-fold probabilities from a logistic regression on `image_features`.
    """
    hashes = index["hash"].to_numpy()
    sums, predicted_count = np.zeros((len(index), classes)), np.zeros(len(index))
    for revision in revisions:
        read = reader(revision)
        try:
            predicted = table(read, PREDICTIONS)
        except LeafError:
            if revision == "workspace":
                continue  # the workspace has no model yet
            raise
        rows = predicted["image"].to_numpy()
        predicted_hashes = table(read, "data/ingested/index.csv")["hash"].to_numpy()[rows]
        if rows.max(initial=-1) >= len(index) or (predicted_hashes != hashes[rows]).any():
            raise LeafError(f"{revision}: its images differ from those in this project. Use runs on the same data set.")
        found = probabilities(read)
        if found.shape[1] != classes:
            raise LeafError(f"{revision}: {found.shape[1]} classes, expected {classes}. Use runs on the same data set.")
        sums[rows] += found
        predicted_count[rows] += 1
    result = np.where(predicted_count[:, None] > 0, sums / np.maximum(predicted_count, 1)[:, None], np.nan)
    kept = np.flatnonzero(decisions["kept"].eq(1))
    missing = predicted_count[kept] == 0
    if missing.any():
        features = image_features(images, kept, choices, folder)
        labels = decisions["label"].to_numpy()[kept]
        estimated = queue.class_probabilities(features, labels, decisions["group"].to_numpy()[kept])
        result[kept[missing]] = 0
        result[np.ix_(kept[missing], np.unique(labels))] = estimated[missing]
    return result


def _run(folder: Path) -> str:
    """Return the model's SHA-256, or "" if there is no model."""
    path = folder / "models/run.json"
    return read_json(path)["model_sha256"] if path.exists() else ""


def _unlike(folder: Path, images: np.ndarray, rows: np.ndarray, run: str) -> np.ndarray:
    """Return a mask, bool (N,), of the images in `rows` whose pixel statistics are out-of-distribution."""
    unlike = np.zeros(len(images), bool)
    path = folder / "data/scored/ood.npz"
    if path.exists():
        detector = ood.read(path, run)
        for start in range(0, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            unlike[block] = ~detector.pixels_in_distribution(images[block])
    return unlike


def _optional(path: Path) -> pd.DataFrame | None:
    return read_table(path) if path.exists() else None


def _author() -> str:
    named = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True).stdout.strip()
    return named or getpass.getuser()
