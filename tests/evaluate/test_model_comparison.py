"""Test the comparison of runs on the same images."""

import numpy as np
import pytest
from scipy.stats import ttest_ind

from leaf.evaluate.model_comparison import adjust, compare

NAMES = ("a", "b")
ALONE = np.arange(400)


def runs(images=400, a=0.8, b=0.8, seeds=1, seed=0):
    """Return whether two independent runs classify each image correctly, bool (seeds, images) each."""
    random = np.random.default_rng(seed)
    return random.random((seeds, images)) < a, random.random((seeds, images)) < b


def test_images_correct_in_one_run_only_are_counted():
    right_a = np.array([[True, True, True, False, False]])
    right_b = np.array([[True, False, False, True, False]])
    found = compare(NAMES, right_a, right_b, np.arange(5))
    assert (found.only_a, found.only_b) == (2, 1)
    assert found.difference == pytest.approx(-0.2)


def test_interval_of_independent_images_is_the_paired_normal_interval():
    right_a, right_b = runs(a=0.7, b=0.85)
    gaps = right_b[0].astype(float) - right_a[0]
    half = 1.966 * gaps.std(ddof=1) / np.sqrt(len(gaps))
    found = compare(NAMES, right_a, right_b, ALONE)
    np.testing.assert_allclose((found.low, found.high), (gaps.mean() - half, gaps.mean() + half), rtol=0.01)


def test_correlated_groups_widen_the_interval():
    right_a, right_b = (np.repeat(right, 16, axis=1) for right in runs(100, a=0.7, b=0.75))
    grouped = compare(NAMES, right_a, right_b, np.repeat(np.arange(100), 16))
    single = compare(NAMES, right_a, right_b, np.arange(1600))
    assert (grouped.high - grouped.low) / (single.high - single.low) == pytest.approx(4, rel=0.05)


def test_p_value_over_several_seeds_is_at_least_welchs():
    random = np.random.default_rng(0)
    low = np.stack([random.random(400) < share for share in (0.6, 0.7, 0.9)])
    high = np.stack([random.random(400) < share for share in (0.9, 0.92, 0.94)])
    found = compare(NAMES, low, high, ALONE)
    welch = ttest_ind(low.mean(axis=1), high.mean(axis=1), equal_var=False).pvalue
    assert found.p == pytest.approx(welch)
    assert found.verdict == "not distinguishable"


def test_a_single_seed_compares_trained_models_and_not_recipes():
    one, several = (compare(NAMES, *runs(a=0.6, b=0.9, seeds=seeds), ALONE) for seeds in (1, 3))
    assert (one.recipes, several.recipes) == (False, True)
    assert "trained model" in one.sentence
    assert "recipe" in several.sentence


def test_a_clear_gain_is_better_and_a_clear_loss_worse():
    assert compare(NAMES, *runs(a=0.7, b=0.9), ALONE).verdict == "better"
    assert compare(NAMES, *runs(a=0.9, b=0.7), ALONE).verdict == "worse"


def test_false_positive_rate_with_33_groups_is_at_most_the_level():
    """Both runs have the same expected accuracy, and predictions within a group are correlated."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(33), 6)
    rejected = []
    for _ in range(300):
        a, b = (random.random(198) < random.beta(2, 0.5, 33)[groups] for _ in range(2))
        rejected.append(compare(NAMES, a[None], b[None], groups).verdict != "not distinguishable")
    assert np.mean(rejected) <= 0.08


def test_identical_runs_have_no_difference():
    right, _ = runs()
    found = compare(NAMES, right, right, ALONE)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_holms_adjustment_widens_the_interval_and_withdraws_a_verdict():
    one = compare(NAMES, *runs(a=0.8, b=0.87, seed=3), ALONE)
    assert one.verdict == "better"
    adjusted = adjust([one] * 40)
    assert {found.verdict for found in adjusted} == {"not distinguishable"}
    assert adjusted[0].low < one.low < one.high < adjusted[0].high


def test_a_difference_in_one_class_is_significant_only_in_that_class():
    labels = np.arange(300) % 3
    a = np.ones((1, 300), bool)
    b = a.copy()
    b[0, np.flatnonzero(labels == 1)[:40]] = False
    found = compare(NAMES, a, b, np.arange(300), by_class=(labels, ["rust", "scab", "spot"]))
    assert [(each.name, each.images, each.only_a) for each in found.classes] == [
        ("rust", 100, 0),
        ("scab", 100, 40),
        ("spot", 100, 0),
    ]
    assert found.classes[1].accuracy == (1, 0.6)
    assert found.classes[1].high < 0
    assert [each.p_holm < 0.05 for each in found.classes] == [False, True, False]
