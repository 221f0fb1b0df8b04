"""SMOTE matches imbalanced-learn."""

import numpy as np
import pytest
from imblearn.over_sampling import SMOTE
from sklearn.neighbors import NearestNeighbors

from leaf.balance import interpolate, plan_images
from leaf.balance.smote import nearest_members, squared_distances

CLASSES = ["healthy", "unhealthy"]


@pytest.fixture
def images():
    """Return 85 random 8×8 images; `labels` assigns 60 to one class and 25 to the other."""
    return np.random.default_rng(0).integers(0, 256, (85, 8, 8, 3), np.uint8)


@pytest.fixture
def labels():
    return np.repeat([0, 1], [60, 25])


def make(images, labels, seed=42):
    plan = plan_images(images, np.arange(len(images)), labels, "smote", CLASSES, 5, seed)
    made = np.empty((len(plan), *images.shape[1:]), images.dtype)
    interpolate(images, plan, made)
    return plan, made


def plain(images, labels, seed=42):
    """Return the images that imbalanced-learn creates from float images."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    return SMOTE(random_state=seed).fit_resample(flat, labels)[0][len(images) :].reshape(-1, *images.shape[1:])


@pytest.mark.parametrize("seed", [0, 42])
def test_images_match_imbalanced_learn_up_to_rounding(images, labels, seed):
    np.testing.assert_allclose(make(images, labels, seed)[1], plain(images, labels, seed), atol=0.5001)


def test_float_images_match_imbalanced_learn(images, labels):
    images = images + np.random.default_rng(1).random(images.shape, np.float32) / 2
    np.testing.assert_array_equal(make(images, labels)[1], plain(images, labels))


def test_each_image_is_the_recorded_interpolation_of_its_parents(images, labels):
    plan, made = make(images, labels)
    parent, neighbour = (images[plan[name]].astype(float) for name in ("parent", "neighbour"))
    between = parent + plan["weight"].to_numpy()[:, None, None, None] * (neighbour - parent)
    np.testing.assert_allclose(made, between, atol=0.5001)


def test_uint8_does_not_wrap_around():
    """The difference between a dark and a bright image is negative, which uint8 cannot represent."""
    images = np.full((20, 4, 4, 3), 250, np.uint8)
    images[12:] = np.arange(8, dtype=np.uint8)[:, None, None, None]
    assert make(images, np.repeat([0, 1], [12, 8]))[1].max() <= 7


def test_nearest_members_match_scikit_learn(images):
    flat = images.reshape(len(images), -1)
    rows = nearest_members(flat, 6)
    squared = np.take_along_axis(squared_distances(flat, np.arange(len(flat))), rows, axis=1)
    theirs, their_rows = NearestNeighbors(n_neighbors=6).fit(flat.astype(float)).kneighbors(flat.astype(float))
    np.testing.assert_array_equal(rows, their_rows)
    np.testing.assert_allclose(np.sqrt(squared), theirs, atol=1e-6)


def test_distances_of_uint8_images_are_exact():
    """The squared distance between black and white exceeds the integers that float32 represents exactly."""
    flat = np.zeros((3, 5000), np.uint8)
    flat[1:] = 255
    flat[2, 0] = 254
    squared = squared_distances(flat, np.arange(3))
    np.testing.assert_array_equal(squared[0, [0, 2, 1]], [0, 255**2 * 4999 + 254**2, 255**2 * 5000])


def test_image_precedes_its_exact_copies_in_its_neighbor_list():
    flat = np.zeros((4, 12), np.uint8)
    rows = nearest_members(flat, 2)
    assert rows[:, 0].tolist() == [0, 1, 2, 3]


def test_approximate_search_finds_most_neighbors():
    random = np.random.default_rng(0)
    smooth = random.normal(0, 40, (400, 40)) @ random.normal(0, 1, (40, 1200)) / 6 + 128
    flat = smooth.clip(0, 255).astype(np.uint8)
    exact, near = (nearest_members(flat, 6, limit) for limit in (400, 50))
    found = [len(set(a) & set(b)) / 6 for a, b in zip(exact, near, strict=True)]
    assert np.mean(found) > 0.95
