"""Fixtures: generated images, and the tables that `clean` reads."""

import hashlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest


def smooth(rng: np.random.Generator, count: int, size: int = 24) -> np.ndarray:
    """Return distinct smooth images: uint8 (count, size, size, 3)."""
    coarse = rng.integers(0, 256, (count, 4, 4, 3))
    return coarse.repeat(size // 4, axis=1).repeat(size // 4, axis=2).astype(np.uint8)


def hashes(images: np.ndarray) -> list[str]:
    return [hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).hexdigest() for image in images]


def index_of(images: np.ndarray, labels: np.ndarray | None = None, group: list[str] | None = None) -> pd.DataFrame:
    count = len(images)
    return pd.DataFrame(
        {
            "image": np.arange(count),
            "source": [str(i) for i in range(count)],
            "label": np.zeros(count, int) if labels is None else labels,
            "group": [""] * count if group is None else group,
            "split": "",
            "hash": hashes(images),
            "flags": "",
        }
    )


@pytest.fixture(scope="session")
def distinct_images() -> Callable[..., np.ndarray]:
    """Return `distinct_images(rng, count, size=24)`, a function that generates distinct images."""
    return smooth


@pytest.fixture(scope="session")
def index() -> Callable[..., pd.DataFrame]:
    """Return `index(images, labels=None, group=None)`, a function that creates an index like that of `ingest`."""
    return index_of


@pytest.fixture(scope="session")
def no_overrides() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=str) for name in ("hash", "ruling", "label", "who", "why")})
