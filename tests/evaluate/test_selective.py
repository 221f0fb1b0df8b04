"""Test that uncertain images are left undecided, so that the error rate stays within its limit."""

import numpy as np
import pytest

from leaf.evaluate.selective import confidence, min_confidence, selective_metrics

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_confidence_of_two_classes_is_lowest_at_the_threshold(threshold):
    second = np.array([0.01, threshold, 0.99])
    found = confidence(np.stack([1 - second, second], axis=1), threshold)
    assert found[1] == pytest.approx(0.5)
    assert min(found[0], found[2]) > 0.9


def test_confidence_of_three_classes_is_the_highest_probability():
    assert confidence(np.array([[0.2, 0.7, 0.1]]), 0.5).tolist() == [0.7]


def test_error_rate_on_new_images_is_at_most_the_stated_rate():
    """The bound applies to the expected error rate, so the rate is averaged over 300 validation sets."""
    sure = RNG.uniform(0.5, 1, (300, 2, 100))
    correct = RNG.uniform(size=sure.shape) < sure
    limits = [min_confidence(right[0], level[0], 0.1) for right, level in zip(correct, sure, strict=True)]
    wrong = [
        np.mean(~right[1] & (level[1] >= limit)) for right, level, limit in zip(correct, sure, limits, strict=True)
    ]
    assert 0.07 < np.mean(wrong) <= 0.1


@pytest.mark.parametrize(
    ("wrong", "rate", "limit"),
    [
        ([0.6, 0.7, 0.8], 0, 0),  # disabled
        ([0.6], 0.02, 0),  # requires at least 49 images
        ([], 0.05, 0),
        ([0.6], 0.10, 0),  # (1 + 1) / 41 < 0.1
        ([0.6, 0.7, 0.8], 0.05, (0.7 + 0.8) / 2),  # one of the 40 images may be decided and wrong
    ],
)
def test_threshold_is_the_lowest_that_meets_the_error_rate(wrong, rate, limit):
    correct = np.arange(40) >= len(wrong)
    level = np.concatenate([wrong, np.linspace(0.9, 1, 40 - len(wrong))])
    assert min_confidence(correct, level, rate) == pytest.approx(limit)


def test_images_of_equal_confidence_get_the_same_decision():
    level = np.repeat([0.6, 0.9], [20, 30])
    correct = np.arange(50) >= 10
    assert min_confidence(correct, level, 0.1) == pytest.approx(0.75)


def test_metrics_count_wrong_images_among_all_and_accuracy_among_decided():
    correct, decided = np.array([1, 1, 0, 0], bool), np.array([1, 1, 1, 0], bool)
    found = selective_metrics(correct, decided, np.arange(4))
    assert (found["decided"], found["wrong"], found["decided_accuracy"]) == (0.75, 0.25, pytest.approx(2 / 3))
    assert np.isnan(selective_metrics(correct, ~decided & False, np.arange(4))["decided_accuracy"])
