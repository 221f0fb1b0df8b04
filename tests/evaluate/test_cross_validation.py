"""Test the summary of cross-validation folds with predictions whose accuracy is known."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from leaf.errors import LeafError
from leaf.evaluate.cross_validation import summarize
from leaf.evaluate.statistics import proportion_interval


def fold(first, right, validation_right=10, validation=range(90, 100)):
    """Return predictions for ten test images, starting with image `first`, and for ten validation images.

    The first `right` test images and the first `validation_right` validation images are classified correctly.
    """
    image = [*range(first, first + 10), *validation]
    guess = [int(place >= right) for place in range(10)] + [int(place >= validation_right) for place in range(10)]
    split = ["test"] * 10 + ["validation"] * 10
    return pd.DataFrame({"image": image, "split": split, "label": 0, "predicted": guess, "group": image})


ALL = [
    fold(10 * number, right, validation=range(10 * number - 10 if number else 40, 10 * number or 50))
    for number, right in enumerate([9, 8, 10, 7, 9])
]


def test_the_summary_has_mean_standard_deviation_and_both_intervals():
    lines = summarize(ALL).splitlines()
    low, high = ttest_1samp([0.9, 0.8, 1.0, 0.7, 0.9], 0).confidence_interval()
    assert "accuracy over 5 folds: mean 0.860, standard deviation 0.114" in lines
    assert any(line.endswith(f"(Student's t): {low:.3f} to {min(high, 1):.3f}") for line in lines)
    wilson = "(Wilson): 0.860, 0.738 to 0.930"  # from statsmodels
    assert f"95% CI over all 50 images in 50 groups, each tested once {wilson}" in lines


def test_correlated_images_of_a_plant_widen_the_interval():
    """In each of the five folds, the predictions for all ten images are correct, or all are wrong."""
    folds = [
        fold(10 * number, right, validation=range(10 * number - 10 if number else 40, 10 * number or 50))
        for number, right in enumerate([10, 10, 10, 0, 10])
    ]
    grouped = summarize([each.assign(group=each["image"] // 10) for each in folds])
    low, high = proportion_interval(np.repeat([1, 1, 1, 0, 1], 10), np.arange(50) // 10)
    assert high - low > 0.6
    assert f"over all 50 images in 5 groups, each tested once (Wilson): 0.800, {low:.3f} to {high:.3f}" in grouped


def test_the_gap_is_validation_minus_test():
    assert "validation minus test: +14.0 points (95% CI over folds -0.2 to +28.2)" in summarize(ALL)


def test_an_image_tested_in_two_folds_is_rejected():
    with pytest.raises(LeafError, match=r"^folds: "):
        summarize([*ALL, fold(40, 9)])


def test_a_missing_fold_is_rejected():
    with pytest.raises(LeafError, match=r"^folds: "):
        summarize(ALL[:-1])
