"""Image preparation shared by benchmarks: ingest, clean, JPEG encoding, cleanvision and frozen features."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from leaf.clean.clean import Cleaned, clean
from leaf.clean.decisions import COLUMNS
from leaf.ingest.decode_cache import pixel_hash
from leaf.ingest.ingest import Ingested, ingest
from leaf.params import Params
from leaf.store import sha256

WEIGHTS = "mobilenet_v2_imagenet_no_top.h5"


def ingest_images(dataset: Path, size: int, classes: Any = "auto") -> tuple[np.ndarray, Ingested]:
    """Return the images of a data set, (N, size, size, 3), and the other results of `ingest`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        ingested = ingest(dataset, path, classes, size)
        return np.load(path), ingested


def mobilenet_features(images: np.ndarray, data: Path) -> np.ndarray:
    """Return features, float32 (N, D), of a frozen MobileNetV2 with the ImageNet weights in the folder `data`."""
    from leaf.models.prediction import frozen_features  # imported here, because it imports Keras

    weights = data / WEIGHTS
    return frozen_features(images, np.arange(len(images)), "mobilenet_v2", str(weights), sha256(weights))


def image_index(images: np.ndarray, labels: int | np.ndarray = 0) -> pd.DataFrame:
    """Return the columns of `ingest`'s index that `clean` uses, including the hash of each image."""
    index = pd.DataFrame({"image": np.arange(len(images)), "label": labels, "group": "", "split": ""})
    index["source"] = index["image"].astype(str)
    index["hash"] = [pixel_hash(image.data) for image in images]
    return index


def clean_images(images: np.ndarray, index: pd.DataFrame, references: Any = "auto", **params: Any) -> Cleaned:
    """Run `clean` without overrides, with `params` on top of the defaults."""
    overrides = pd.DataFrame({name: pd.Series(dtype=str) for name in COLUMNS})
    return clean(images, index, references, overrides, Params(**params))


def as_jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    """Encode an image as JPEG and decode it."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def write_bitmaps(images: Iterable[np.ndarray], folder: Path) -> None:
    """Write the images as bitmaps, which are cheap to decode, named by their positions."""
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:06}.bmp")


def cleanvision_sets(folder: Path) -> list[set[int]]:
    """Return cleanvision's sets of exact and near duplicates among the files of `write_bitmaps`, as positions."""
    from cleanvision import Imagelab

    lab = Imagelab(filepaths=[str(path) for path in sorted(folder.iterdir())])
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, verbose=False)
    found = [*lab.info["exact_duplicates"]["sets"], *lab.info["near_duplicates"]["sets"]]
    return [{int(Path(path).stem) for path in each} for each in found]
