"""Fixtures: a small network and data set that train quickly, and parameters with the schema's defaults."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from leaf.params import Params
from leaf.train.dataset import Dataset

SIZE = 16


def _dataset(count: int, seed: int) -> Dataset:
    """Return noise images; those of class 1 are slightly redder."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    images = random.integers(0, 200, (count, SIZE, SIZE, 3))
    images[labels == 1, :, :, 0] += 30
    return Dataset(images.astype(np.uint8), np.arange(count), labels)


@pytest.fixture(scope="session")
def dataset() -> Callable[[int, int], Dataset]:
    return _dataset


@pytest.fixture(scope="session")
def recipe() -> Callable[..., Params]:
    """Return a function that returns the default parameters with the given changes."""
    return lambda **changes: Params(**changes)


@pytest.fixture(scope="session")
def network() -> Callable[..., Any]:
    """Return a function that builds a small network: dropout, a convolution, BatchNormalization and two logits."""

    def build(seed: int = 0, dropout: float = 0.1, normalized: bool = True) -> Any:
        import keras
        from keras import layers

        from leaf.train.reproducibility import fix_seeds

        fix_seeds(seed)
        parts = [keras.Input((SIZE, SIZE, 3)), layers.Dropout(dropout), layers.Rescaling(1 / 255)]
        parts += [layers.Conv2D(4, 5, 4, activation="relu"), layers.GlobalAveragePooling2D()]
        parts += [layers.BatchNormalization()] if normalized else []
        return keras.Sequential([*parts, layers.Dense(2)])

    return build
