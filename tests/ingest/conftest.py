"""Fixtures: small data sets, and a function that ingests them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leaf.ingest.classes import Wanted
from leaf.ingest.ingest import Ingested, ingest

CLASSES = ("healthy", "unhealthy")
Read = Callable[..., tuple[Ingested, np.ndarray]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Return a function that ingests a data set and returns the result and the stored images."""

    def run(dataset: Path, size: int = 16, classes: Wanted = CLASSES, **options: Any) -> tuple[Ingested, np.ndarray]:
        images = tmp_path / "out" / "images.npy"
        result = ingest(dataset, images, classes, size, **options)
        return result, np.load(images)

    return run


@pytest.fixture
def images() -> np.ndarray:
    """Return twelve different images, uint8 (12, 16, 16, 3)."""
    return np.random.default_rng(1).integers(0, 256, (12, 16, 16, 3), np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    """Return the labels of `images` as an object array; every third is unhealthy."""
    return np.array(["unhealthy" if number % 3 == 0 else "healthy" for number in range(12)], object)


@pytest.fixture
def npz(tmp_path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """Write `images` and `labels` in the format of the course's data set."""
    path = tmp_path / "leaves.npz"
    np.savez(path, data=images.astype(np.float32), labels=labels)
    return path


@pytest.fixture
def folder(tmp_path: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """Write `images` as PNG files, in one folder per class."""
    root = tmp_path / "leaves"
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (root / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / label / f"{number:02}.png")
    return root
