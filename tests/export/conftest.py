"""Fixtures: a network with layers that are difficult to export, and input images."""

import keras
import numpy as np
import pytest


@pytest.fixture(scope="session")
def awkward():
    """Return a network with an exact GELU and a Normalization layer, from images (N, 32, 32, 3) to (N, 2)."""
    keras.utils.set_random_seed(3)
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Normalization(mean=[120, 110, 100], variance=[2500, 1600, 3600])(image)
    x = keras.layers.Conv2D(8, 4, strides=4, activation="gelu")(x)
    x = keras.layers.LayerNormalization()(keras.layers.DepthwiseConv2D(7, padding="same")(x))
    x = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, keras.layers.Softmax()(x))


@pytest.fixture(scope="session")
def images():
    """Return noise images of increasing brightness, float32 (5, 32, 32, 3), so that the outputs differ."""
    rng = np.random.default_rng(0)
    return (rng.uniform(0, 1, (5, 32, 32, 3)) * np.linspace(40, 255, 5)[:, None, None, None]).astype(np.float32)
