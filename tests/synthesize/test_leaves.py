"""Synthetic leaves differ, can have any size, and are neither trivial nor impossible to classify."""

import time

import numpy as np
import pytest

from leaf.synthesize import ImageCounts, draw_dataset, draw_leaf


def histogram(images):
    """Return the eight-bin histograms of the color baseline."""
    return np.stack([[np.bincount(image[..., c].ravel() >> 5, minlength=8) for c in range(3)] for image in images])


@pytest.mark.parametrize("size", [32, 96, 200])
@pytest.mark.parametrize("healthy", [True, False])
def test_leaf_can_be_drawn_at_any_size(size, healthy):
    image = draw_leaf(np.random.default_rng(1), size, healthy)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8


def test_leaf_depends_only_on_its_generator():
    first, second = (draw_leaf(np.random.default_rng(5), 64, False) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_no_image_is_uniform():
    images = np.stack([draw_leaf(np.random.default_rng(seed), 48, seed % 2 == 0) for seed in range(60)])
    assert images.astype(float).std(axis=(1, 2, 3)).min() > 8


@pytest.mark.slow
def test_no_two_drawn_leaves_are_near_duplicates():
    images, _ = draw_dataset(ImageCounts(600, 400, 0, 0, 0), 96, seed=2023)
    flat = images.reshape(len(images), -1).astype(np.float32)
    squares = (flat**2).sum(axis=1)
    distances = (squares[:, None] + squares - 2 * flat @ flat.T) / flat.shape[1]
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 300  # twice the default near_mse


@pytest.mark.slow
def test_color_alone_predicts_little():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, labels = draw_dataset(ImageCounts(306, 179, 0, 0, 0), 96, seed=2023)
    features = histogram(images).reshape(len(images), -1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    assert cross_val_score(model, features, labels, cv=5).mean() < 0.8


@pytest.mark.slow
def test_drawing_takes_milliseconds_per_image():
    start = time.process_time()
    for seed in range(100):
        draw_leaf(np.random.default_rng(seed), 96, seed % 2 == 0)
    assert (time.process_time() - start) / 100 < 0.02
