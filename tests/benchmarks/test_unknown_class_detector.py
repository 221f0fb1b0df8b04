"""Detection of classes that are not in the training set."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from unknown_class_detector import REJECTED, fit_unknown_classes

CENTERS = np.zeros((3, 40))
CENTERS[np.arange(3), np.arange(3)] = 8


def draw(label, count, seed):
    return CENTERS[label] + np.random.default_rng(seed).normal(size=(count, 40))


@pytest.fixture(scope="module")
def detector():
    train = np.concatenate([draw(0, 100, 1), draw(1, 100, 2)])
    validation = np.concatenate([draw(0, 100, 3), draw(1, 100, 4)])
    return fit_unknown_classes(train, np.repeat([0, 1], 100), validation)


def test_an_unknown_class_scores_higher_than_known_ones(detector):
    known, new = detector.score(np.concatenate([draw(0, 50, 5), draw(1, 50, 6)])), detector.score(draw(2, 100, 7))
    assert np.mean(new[:, None] > known) > 0.9


def test_the_limit_rejects_five_percent_of_validation_images(detector):
    validation = np.concatenate([draw(0, 100, 3), draw(1, 100, 4)])
    assert np.mean(detector.score(validation) > detector.limit) == pytest.approx(REJECTED, abs=0.01)


def test_scores_do_not_depend_on_the_batch(detector):
    images = draw(2, 8, 8)
    np.testing.assert_allclose(detector.score(images)[3], detector.score(images[3:4])[0], rtol=1e-4)


def test_two_classes_have_the_energy_of_two_logits(detector):
    assert detector.weights.shape == (40, 2)
    np.testing.assert_allclose(detector.weights.sum(axis=1), 0, atol=1e-6)
