"""Test that baselines use only the colors and class shares of the training images."""

import numpy as np
import pytest

from leaf.evaluate.baselines import baseline_probabilities, channel_histograms, joint_histograms


@pytest.fixture
def images():
    """Return 40 green and 40 brown images with noise, 12 × 12 pixels each."""
    colors = np.repeat([[60, 160, 50], [140, 110, 50]], 40, axis=0)
    noise = np.random.default_rng(0).normal(0, 20, (80, 12, 12, 3))
    return (colors[:, None, None] + noise).clip(0, 255).astype(np.uint8)


LABELS = np.repeat([0, 1], 40)
TRAIN, VALIDATION, TEST = np.arange(0, 80, 2), np.arange(1, 80, 4), np.arange(3, 80, 4)


def predict(images, train=TRAIN, validation=VALIDATION, rows=TEST, labels=LABELS):
    """Return each baseline's probabilities for `rows`."""
    found, _ = baseline_probabilities(images, (train, labels[train]), (validation, labels[validation]), rows)
    return {name: on_rows for name, (_, on_rows) in found.items()}


def test_channel_histograms_match_numpy(images):
    expected = [np.histogram(images[3, ..., c], bins=32, range=(0, 256))[0] / 144 for c in range(3)]
    np.testing.assert_allclose(channel_histograms(images, np.array([3]))[0], np.concatenate(expected), atol=1e-6)


def test_joint_histograms_match_numpy(images):
    expected = np.histogramdd(images[3].reshape(-1, 3), bins=8, range=[(0, 256)] * 3)[0].ravel() / 144
    np.testing.assert_allclose(joint_histograms(images, np.array([3]))[0] ** 2, expected, atol=1e-6)


def test_float_and_uint8_images_have_equal_histograms(images):
    rows = np.arange(5)
    np.testing.assert_array_equal(channel_histograms(images.astype(np.float32), rows), channel_histograms(images, rows))


@pytest.mark.parametrize("name", ["histogram", "joint_histogram", "tuned_color"])
def test_color_baselines_separate_green_from_brown(images, name):
    assert (predict(images)[name].argmax(axis=1) == LABELS[TEST]).mean() > 0.95


def test_majority_predicts_the_training_class_shares(images):
    np.testing.assert_allclose(predict(images, train=np.arange(30, 80))["majority"], [[0.2, 0.8]] * len(TEST))


def test_baselines_read_only_the_given_rows(images):
    changed = images.copy()
    changed[60:] = 0
    rows = {"train": np.arange(20, 50), "validation": np.arange(35, 60), "rows": np.arange(20)}
    for name, found in predict(images, **rows).items():
        np.testing.assert_array_equal(predict(changed, **rows)[name], found)


def test_tuned_baseline_finds_an_interaction_that_logistic_regression_misses():
    """The label is the XOR of two color patches, which a linear model on color histograms cannot learn."""
    random = np.random.default_rng(0)
    first, second = random.integers(0, 2, (2, 240))
    images = random.integers(0, 30, (240, 12, 12, 3), dtype=np.uint8)
    images[first == 1, :6] += np.array([200, 0, 0], np.uint8)
    images[second == 1, 6:] += np.array([0, 0, 200], np.uint8)
    rows, labels = np.arange(240), first ^ second
    train, validation, test = np.split(rows, [120, 180])
    found, model = baseline_probabilities(images, (train, labels[train]), (validation, labels[validation]), test)
    correct = {name: (each.argmax(axis=1) == labels[test]).mean() for name, (_, each) in found.items()}
    assert model.startswith("forest")
    assert correct["tuned_color"] > 0.95


def test_validation_images_are_predicted_by_the_selected_model(images):
    found, _ = baseline_probabilities(images, (TRAIN, LABELS[TRAIN]), (VALIDATION, LABELS[VALIDATION]), VALIDATION)
    for on_validation, on_rows in found.values():
        np.testing.assert_array_equal(on_validation, on_rows)


def test_test_labels_do_not_affect_the_selection(images):
    """Test labels are not passed to the function. Flipping the validation labels does change the selected model."""
    flipped = np.where(np.isin(np.arange(80), VALIDATION), 1 - LABELS, LABELS)
    before, after = predict(images), predict(images, labels=flipped)
    np.testing.assert_array_equal(before["joint_histogram"], after["joint_histogram"])
    assert not np.array_equal(before["tuned_color"], after["tuned_color"])


def test_large_sets_are_sampled_with_every_class(images, monkeypatch):
    monkeypatch.setattr("leaf.evaluate.baselines._MOST_IMAGES", 7)
    labels = LABELS.copy()
    labels[78] = 2  # a third class with one training image
    found = predict(images, labels=labels)
    assert found["joint_histogram"].shape == (20, 3)
    assert (found["joint_histogram"].argmax(axis=1) == LABELS[TEST]).mean() > 0.9
    sampled = TRAIN[[*range(0, 40, 6), 20, 39]]  # every sixth image, and the first of each class
    changed = images.copy()
    changed[np.setdiff1d(TRAIN, sampled)] = 0
    np.testing.assert_array_equal(predict(changed, labels=labels)["joint_histogram"], found["joint_histogram"])
