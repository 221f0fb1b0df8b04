"""The intervals against other libraries, published values, and simulation."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from leaf.evaluate.metrics import roc_area, share_interval, wilson


@pytest.mark.parametrize(("right", "images"), [(0, 10), (7, 10), (10, 10), (170, 208), (1, 1)])
def test_wilson_equals_statsmodels(right, images):
    expected = proportion_confint(right, images, alpha=0.05, method="wilson")
    np.testing.assert_allclose(wilson(right, images), expected, atol=1e-12)


def test_wilson_of_no_image_is_not_a_number():
    assert all(math.isnan(limit) for limit in wilson(0, 0))


def test_groups_of_one_image_change_no_interval():
    right = np.arange(40) % 7 != 0
    assert share_interval(right, np.arange(40)) == wilson(int(right.sum()), 40)


@pytest.mark.parametrize("share", [0.8, 1.0])
def test_images_that_are_right_together_count_as_one(share):
    right = np.arange(50) < share * 50
    many = share_interval(np.repeat(right, 6), np.repeat(np.arange(50), 6))
    np.testing.assert_allclose(many, wilson(share * 50, 50), atol=0.004)


def test_groups_that_tell_nothing_of_each_other_leave_wilsons_interval():
    random = np.random.default_rng(0)
    right, groups = random.random(6000) < 0.8, np.repeat(np.arange(1000), 6)
    np.testing.assert_allclose(share_interval(right, groups), wilson(right.sum(), 6000), atol=0.001)


def test_the_interval_with_groups_covers_the_truth_as_often_as_it_says():
    """Sixty plants of five photographs, whose chance of being right differs from plant to plant; mean 0.8."""
    random = np.random.default_rng(0)
    inside = plain = 0
    for _ in range(400):
        right = random.random((60, 5)) < random.beta(1.6, 0.4, 60)[:, None]
        low, high = share_interval(right.ravel(), np.repeat(np.arange(60), 5))
        inside += low <= 0.8 <= high
        low, high = wilson(int(right.sum()), 300)
        plain += low <= 0.8 <= high
    assert inside / 400 > 0.92
    assert plain / 400 < 0.85  # what an interval says that takes photographs for plants


def test_the_area_is_scikit_learns_ties_included(drawn):
    assert roc_area(*drawn)[0] == pytest.approx(roc_auc_score(*drawn), abs=1e-12)


def test_delongs_variance_is_that_of_its_definition(drawn):
    """Against the plain double loop of DeLong 1988, equation by equation."""
    labels, p = drawn
    positive, negative = p[labels == 1], p[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)
    area, low, high = roc_area(labels, p)
    assert (high - low) / 2 == pytest.approx(1.959963984540054 * math.sqrt(variance), rel=1e-9)
    assert (high + low) / 2 == pytest.approx(area)


def test_a_perfect_area_still_has_an_interval():
    labels = np.repeat([0, 1], 10)
    area, low, high = roc_area(labels, np.linspace(0, 1, 20))
    assert (area, high) == (1, 1)
    assert 0.7 < low < 0.95


def test_an_area_of_nothing_right_has_the_mirrored_interval():
    labels = np.repeat([0, 1], 10)
    _, low, _ = roc_area(labels, np.linspace(0, 1, 20))
    assert roc_area(labels, np.linspace(1, 0, 20)) == pytest.approx((0, 0, 1 - low))


def test_the_area_of_one_class_is_not_a_number():
    assert all(math.isnan(value) for value in roc_area(np.ones(4, int), np.linspace(0, 1, 4)))


def test_the_areas_interval_holds_the_true_area_about_95_times_in_100(make_drawn):
    """Two normals 3 apart with deviation 1.5: the true area is Φ(3 / (1.5 √2)) = 0.921."""
    true = 0.5 * (1 + math.erf(3 / (1.5 * math.sqrt(2)) / math.sqrt(2)))
    held = [low <= true <= high for seed in range(300) for _, low, high in [roc_area(*make_drawn(200, seed))]]
    assert 0.91 <= np.mean(held) <= 0.99
