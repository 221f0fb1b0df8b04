"""The baselines see colours and shares, and only the real training images."""

import numpy as np
import pytest

from leaf.evaluate.baselines import STRENGTHS, baseline_probabilities, channel_histograms, joint_histograms, linear_head


@pytest.fixture
def images():
    """40 green, then 40 brown pictures of noise, 12×12."""
    colours = np.repeat([[60, 160, 50], [140, 110, 50]], 40, axis=0)
    noise = np.random.default_rng(0).normal(0, 20, (80, 12, 12, 3))
    return (colours[:, None, None] + noise).clip(0, 255).astype(np.uint8)


LABELS = np.repeat([0, 1], 40)
TRAIN, ASKED = np.arange(0, 80, 2), np.arange(1, 80, 2)


def test_channel_histograms_are_numpys(images):
    expected = [np.histogram(images[3, ..., c], bins=32, range=(0, 256))[0] / 144 for c in range(3)]
    np.testing.assert_allclose(channel_histograms(images, np.array([3]))[0], np.concatenate(expected), atol=1e-6)


def test_joint_histograms_are_numpys(images):
    expected = np.histogramdd(images[3].reshape(-1, 3), bins=8, range=[(0, 256)] * 3)[0].ravel() / 144
    np.testing.assert_allclose(joint_histograms(images, np.array([3]))[0] ** 2, expected, atol=1e-6)


def test_float_images_have_the_histograms_of_their_whole_values(images):
    rows = np.arange(5)
    np.testing.assert_array_equal(channel_histograms(images.astype(np.float32), rows), channel_histograms(images, rows))


@pytest.mark.parametrize("name", ["histogram", "joint_histogram"])
def test_histograms_part_green_from_brown(images, name):
    found = baseline_probabilities(images, TRAIN, LABELS[TRAIN], ASKED)[name]
    assert (found.argmax(axis=1) == LABELS[ASKED]).mean() > 0.95


def test_the_majority_is_the_training_splits(images):
    rows = np.arange(30, 80)
    found = baseline_probabilities(images, rows, LABELS[rows], ASKED)["majority"]
    np.testing.assert_allclose(found, [[0.2, 0.8]] * len(ASKED))


def test_pictures_outside_train_and_asked_are_not_read(images):
    changed = images.copy()
    changed[60:] = 0
    rows, asked = np.arange(20, 55), np.arange(20)
    for name, found in baseline_probabilities(images, rows, LABELS[rows], asked).items():
        np.testing.assert_array_equal(baseline_probabilities(changed, rows, LABELS[rows], asked)[name], found)


def test_of_very_many_images_a_share_is_learnt_from_every_class_among_it(images, monkeypatch):
    monkeypatch.setattr("leaf.evaluate.baselines._MOST", 7)
    labels = np.append(LABELS[TRAIN][:-1], 2)  # a third class of one image
    found = baseline_probabilities(images, TRAIN, labels, ASKED)
    assert found["joint_histogram"].shape == (40, 3)
    assert (found["joint_histogram"].argmax(axis=1) == LABELS[ASKED]).mean() > 0.9
    learnt = TRAIN[[*range(0, 40, 6), 20, 39]]  # and the first of each class
    changed = images.copy()
    changed[np.setdiff1d(TRAIN, learnt)] = 0
    again = baseline_probabilities(changed, TRAIN, labels, ASKED)
    np.testing.assert_array_equal(again["joint_histogram"], found["joint_histogram"])


def noisy(images: int, copies: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (images × copies, 40) that hardly tell the labels, in groups of near copies."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(images) % 3, copies)
    features = np.repeat(random.normal(0, 1, (images, 40)), copies, axis=0)
    features += random.normal(0, 0.01, features.shape) + 0.6 * (np.arange(40) == labels[:, None])
    return features, labels, np.repeat(np.arange(images), copies)


def test_the_strength_is_chosen_by_folds_that_keep_groups_whole():
    features, labels, groups = noisy(60, 4)
    whole = linear_head(features, labels, groups)[-1]
    torn = linear_head(features, labels, np.arange(len(labels)))[-1]
    assert whole.C in STRENGTHS
    assert whole.C < torn.C  # copies in another fold make large weights look good


def test_a_linear_head_is_fitted_to_convergence():
    features, labels, groups = noisy(60, 1)
    scaler, head = linear_head(features, labels, groups)
    errors = head.predict_proba(scaler.transform(features)) - np.eye(3)[labels]
    gradient = errors.T @ scaler.transform(features) + head.coef_ / head.C
    assert np.abs(gradient).max() < 1e-3 * len(labels)


def test_a_class_of_one_group_leaves_the_strength_at_its_default():
    features, labels, groups = noisy(30, 2)
    groups[labels == 2] = 99
    assert linear_head(features, labels, groups)[-1].C == 1


def test_balanced_classes_weigh_the_same():
    features, labels, _ = noisy(60, 1)
    rare = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)[:5]])
    [predicted, balanced] = [
        linear_head(features[rare], labels[rare], balanced=each).predict_proba(features[labels == 1])[:, 1].mean()
        for each in (False, True)
    ]
    assert balanced > predicted + 0.05
