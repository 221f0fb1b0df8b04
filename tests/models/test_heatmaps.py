"""Test the Grad-CAM heatmaps and their closed-form gradient."""

import keras
import numpy as np
import pytest

from leaf.models.build import build_model
from leaf.models.gradcam import gradient, heatmaps
from leaf.models.prediction import KerasNetwork, compute_heatmaps, head


@pytest.fixture(scope="module")
def atto():
    model = build_model("convnext_atto", 64)
    model.get_layer("batch_normalization").set_weights(
        [np.random.default_rng(number).uniform(0.5, 2, 320).astype(np.float32) for number in range(4)]
    )
    return model


@pytest.mark.slow
def test_gradient_equals_finite_differences(atto):
    mean = np.random.default_rng(5).normal(size=(1, 320)).astype(np.float32)
    tail = [atto.get_layer(name) for name in ("norm", "batch_normalization", "dense")]

    def difference(at):
        for layer in tail:
            at = layer(at)
        logits = np.asarray(at, np.float64)
        return logits[0, 1] - logits[0, 0]

    found = gradient(head(atto), mean, np.array([1]))[0]
    direction = found / np.linalg.norm(found)
    slope = (difference(mean + 0.05 * direction) - difference(mean - 0.05 * direction)) / 0.1
    assert slope == pytest.approx(np.linalg.norm(found), rel=1e-2)


def test_heatmap_covers_the_spot_that_decides_the_class(small):
    """The logit of the second class is the brightness, so the heatmap must peak at the bright spot."""
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.AveragePooling2D(4)(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.BatchNormalization(name="batch_normalization")(x)
    model = keras.Model(image, keras.layers.Dense(2, name="dense")(x), name="bright")
    model.get_layer("dense").set_weights([np.array([[0.0, 1.0]] * 3), np.zeros(2)])
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[0, 4:10, 20:26] = 255
    images[1, 22:28, 6:12] = 255
    maps = compute_heatmaps(model, images)
    where = [np.unravel_index(part.argmax(), part.shape) for part in maps]
    assert abs(where[0][0] - 7) <= 3
    assert abs(where[0][1] - 23) <= 3
    assert abs(where[1][0] - 25) <= 3
    assert abs(where[1][1] - 9) <= 3


def test_three_classes_have_different_heatmaps():
    """The logit of each class is one color channel, so each heatmap must peak at the spot of that color."""
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.AveragePooling2D(4)(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.BatchNormalization(name="batch_normalization")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, keras.layers.Dense(3, name="dense")(x), name="colors")
    model.get_layer("dense").set_weights([np.eye(3), np.zeros(3)])
    images = np.zeros((3, 32, 32, 3), np.uint8)
    places = [(6, 6), (6, 25), (25, 16)]
    for channel, (row, column) in enumerate(places):
        images[:, row - 3 : row + 3, column - 3 : column + 3, channel] = 200 + 20 * channel
    maps = compute_heatmaps(model, images, np.array([0, 1, 2]))
    for shown, (row, column) in zip(maps, places, strict=True):
        found = np.unravel_index(shown.argmax(), shown.shape)
        assert max(abs(found[0] - row), abs(found[1] - column)) <= 3
    np.testing.assert_array_equal(compute_heatmaps(model, images), compute_heatmaps(model, images, np.array([2, 2, 2])))
    same = np.zeros(3, int)  # all three labels refer to the first image
    np.testing.assert_array_equal(
        heatmaps(KerasNetwork(model), images[:1].astype(np.float32), np.arange(3), same), maps
    )


@pytest.mark.slow
def test_heatmaps_have_the_size_of_the_image_and_values_from_0_to_1(atto):
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    maps = compute_heatmaps(atto, images)
    assert maps.shape == (3, 64, 64)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert maps.max() == 1
