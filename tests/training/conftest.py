"""A small network and data set that train in a moment."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from leaf.training import Examples

SIZE = 16


def _examples(count: int, seed: int) -> Examples:
    """Images of noise; those of class 1 are a little redder."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    images = random.integers(0, 200, (count, SIZE, SIZE, 3))
    images[labels == 1, :, :, 0] += 30
    return Examples(images.astype(np.uint8), np.arange(count), labels)


@pytest.fixture(scope="session")
def examples() -> Callable[[int, int], Examples]:
    return _examples


@pytest.fixture(scope="session")
def network() -> Callable[..., Any]:
    """Build the small network from a seed: dropout, a convolution, BatchNormalization, two logits."""

    def build(seed: int = 0, dropout: float = 0.1, normalized: bool = True) -> Any:
        import keras
        from keras import layers

        from leaf.training import fix_seeds

        fix_seeds(seed)
        parts = [keras.Input((SIZE, SIZE, 3)), layers.Dropout(dropout), layers.Rescaling(1 / 255)]
        parts += [layers.Conv2D(4, 5, 4, activation="relu"), layers.GlobalAveragePooling2D()]
        parts += [layers.BatchNormalization()] if normalized else []
        return keras.Sequential([*parts, layers.Dense(2)])

    return build
