"""Comparing runs, against scipy and statsmodels on known cases."""

from dataclasses import replace

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from leaf.evaluate.model_comparison import bootstrap_interval, compare, holm

NAMES = ("plain", "better")
ALONE = np.arange(400)


def runs(images=400, a=0.8, b=0.8, seeds=1, seed=0):
    """Which images two runs get right, bool (seeds, images) each, independently."""
    random = np.random.default_rng(seed)
    return random.random((seeds, images)) < a, random.random((seeds, images)) < b


@pytest.mark.parametrize(("a", "b"), [(0.8, 0.8), (0.7, 0.9), (0.95, 0.9)])
def test_the_exact_test_is_statsmodels_mcnemar(a, b):
    right_a, right_b = runs(a=a, b=b)
    table = [[np.sum(x & y) for y in (right_b, ~right_b)] for x in (right_a, ~right_a)]
    assert compare(NAMES, right_a, right_b, ALONE).p == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_images_that_each_alone_gets_right_are_counted():
    right_a = np.array([[True, True, True, False, False]])
    right_b = np.array([[True, False, False, True, False]])
    found = compare(NAMES, right_a, right_b, np.arange(5))
    assert (found.only_a, found.only_b) == (2, 1)
    assert found.difference == pytest.approx(-0.2)


def test_the_interval_is_the_normal_one_for_single_images():
    """Paired differences of independent images: mean ± 1.96 standard errors, to a tenth of the width."""
    right_a, right_b = runs(a=0.7, b=0.85)
    gaps = right_b[0].astype(float) - right_a[0]
    half = 1.96 * gaps.std() / np.sqrt(len(gaps))
    found = bootstrap_interval(right_a, right_b, ALONE)
    np.testing.assert_allclose(found, (gaps.mean() - half, gaps.mean() + half), atol=half / 5)


def test_groups_that_agree_widen_the_interval():
    """Sixteen images of a group that are right together tell no more than one: four times the width."""
    right_a, right_b = (np.repeat(right, 16, axis=1) for right in runs(100, a=0.7, b=0.75))
    grouped = np.diff(bootstrap_interval(right_a, right_b, np.repeat(np.arange(100), 16)))
    single = np.diff(bootstrap_interval(right_a, right_b, np.arange(1600)))
    assert grouped / single == pytest.approx(4, rel=0.15)


def test_seeds_that_differ_widen_the_interval():
    """One seed of three got 20 points less: a run's luck is part of what is not known."""
    random = np.random.default_rng(0)
    steady = random.random((3, 400)) < 0.8
    shaky = np.stack([random.random(400) < share for share in (0.9, 0.9, 0.6)])
    assert np.diff(bootstrap_interval(steady, shaky, ALONE)) > 2 * np.diff(bootstrap_interval(steady, steady, ALONE))


def test_over_several_seeds_an_image_counts_for_the_run_that_gets_it_right_more_often():
    right_a = np.array([[True, True], [True, False]])
    right_b = np.array([[True, True], [False, True]])
    found = compare(NAMES, right_a, right_b, np.arange(2))
    assert (found.only_a, found.only_b, found.difference) == (1, 1, 0)


def test_holms_correction_is_statsmodels():
    one = compare(NAMES, *runs(), ALONE)
    values = [0.012, 0.3, 0.04, 0.001, 0.012]
    found = [corrected.p_holm for corrected in holm([replace(one, p=value) for value in values])]
    np.testing.assert_allclose(found, multipletests(values, method="holm")[1])


def test_a_clear_gain_is_called_better():
    assert compare(NAMES, *runs(a=0.7, b=0.9), ALONE).sentence.startswith("better is better than plain: +2")


def test_a_clear_loss_is_called_worse():
    assert compare(NAMES, *runs(a=0.9, b=0.7), ALONE).verdict == "worse"


def test_two_runs_of_equal_skill_are_not_distinguishable():
    assert "are not distinguishable on these 400 images" in compare(NAMES, *runs(seed=1), ALONE).sentence


def test_equal_runs_are_wrongly_told_apart_at_most_5_times_in_100():
    told = [
        compare(NAMES, *runs(150, seed=seed), np.arange(150)).verdict != "not distinguishable" for seed in range(30)
    ]
    assert np.mean(told) <= 0.1


def test_identical_runs_differ_by_nothing():
    right, _ = runs()
    found = compare(NAMES, right, right, ALONE)
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_a_gain_that_holm_takes_back_is_not_called_better():
    one = compare(NAMES, *runs(a=0.8, b=0.87, seed=3), ALONE)
    assert one.verdict == "better"
    assert {found.verdict for found in holm([one] * 40)} == {"not distinguishable"}


def test_the_same_seed_gives_the_same_interval():
    assert bootstrap_interval(*runs(), ALONE) == bootstrap_interval(*runs(), ALONE)


def test_a_difference_in_one_class_is_found_in_that_class_alone():
    labels = np.arange(300) % 3
    a = np.ones((1, 300), bool)
    b = a.copy()
    b[0, np.flatnonzero(labels == 1)[:40]] = False
    found = compare(("a", "b"), a, b, np.arange(300), by_class=(labels, ["rust", "scab", "spot"]))
    assert [(each.name, each.images, each.only_a, each.only_b) for each in found.classes] == [
        ("rust", 100, 0, 0),
        ("scab", 100, 40, 0),
        ("spot", 100, 0, 0),
    ]
    assert found.classes[1].recall == (1, 0.6)
    assert [each.p_holm < 0.05 for each in found.classes] == [False, True, False]
