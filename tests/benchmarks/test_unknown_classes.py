"""Test the scores of images whose class is not in the training set."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from unknown_classes import all_scores, class_logits

CENTERS = np.zeros((3, 40))
CENTERS[np.arange(3), np.arange(3)] = 8


def draw(label, count, seed):
    return CENTERS[label] + np.random.default_rng(seed).normal(size=(count, 40))


@pytest.mark.parametrize("name", ["ViM", "ViM + energy"])
def test_unknown_class_scores_higher_than_known_ones(name):
    train = np.concatenate([draw(0, 100, 1), draw(1, 100, 2)])
    queries = np.concatenate([draw(0, 50, 5), draw(1, 50, 6), draw(2, 100, 7)])
    known, new = np.split(all_scores(train, np.repeat([0, 1], 100), queries)[name], 2)
    assert np.mean(new[:, None] > known) > 0.9


def test_two_logits_give_the_probability_of_a_single_logit():
    decision = np.array([-3.0, 0.0, 2.0])
    logits = class_logits(decision)
    np.testing.assert_allclose(np.exp(logits[:, 1] - logsumexp(logits, axis=1)), 1 / (1 + np.exp(-decision)))
