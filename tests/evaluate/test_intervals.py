"""Test that intervals agree with other libraries, published values and simulations."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm, t
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from leaf.evaluate.statistics import auc_interval, holm, proportion_interval, sign_flip_test, wilson_interval


@pytest.mark.parametrize(("right", "images"), [(0, 10), (7, 10), (10, 10), (170, 208), (1, 1)])
def test_wilson_interval_matches_statsmodels(right, images):
    expected = proportion_confint(right, images, alpha=0.05, method="wilson")
    np.testing.assert_allclose(wilson_interval(right, images), expected, atol=1e-12)


def test_wilson_interval_without_images_is_nan():
    assert all(math.isnan(limit) for limit in wilson_interval(0, 0))


def test_groups_of_one_image_do_not_change_the_interval():
    right = np.arange(40) % 7 != 0
    assert proportion_interval(right, np.arange(40)) == wilson_interval(int(right.sum()), 40)


@pytest.mark.parametrize("share", [0.8, 1.0])
def test_equal_outcomes_within_groups_count_once(share):
    right = np.arange(50) < share * 50
    many = proportion_interval(np.repeat(right, 6), np.repeat(np.arange(50), 6))
    np.testing.assert_allclose(many, wilson_interval(share * 50, 50), atol=0.012)


def test_uncorrelated_groups_have_wilsons_interval():
    random = np.random.default_rng(0)
    right, groups = random.random(6000) < 0.8, np.repeat(np.arange(1000), 6)
    np.testing.assert_allclose(proportion_interval(right, groups), wilson_interval(right.sum(), 6000), atol=0.002)


def test_the_grouped_interval_has_its_nominal_coverage():
    """Simulate sixty plants with five images each. The accuracy varies between plants and has a mean of 0.8."""
    random = np.random.default_rng(0)
    inside = plain = 0
    for _ in range(400):
        right = random.random((60, 5)) < random.beta(1.6, 0.4, 60)[:, None]
        low, high = proportion_interval(right.ravel(), np.repeat(np.arange(60), 5))
        inside += low <= 0.8 <= high
        low, high = wilson_interval(int(right.sum()), 300)
        plain += low <= 0.8 <= high
    assert inside / 400 > 0.92
    assert plain / 400 < 0.85  # the coverage if images are treated as independent


def test_auc_with_ties_matches_scikit_learn(drawn):
    assert auc_interval(*drawn)[0] == pytest.approx(roc_auc_score(*drawn), abs=1e-12)


def test_auc_variance_of_independent_images_matches_delong(drawn):
    """On the logit scale, the half-width is t times DeLong's standard error divided by area × (1 − area)."""
    labels, p = drawn
    positive, negative = p[labels == 1], p[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    variance = wins.mean(axis=1).var(ddof=1) / len(positive) + wins.mean(axis=0).var(ddof=1) / len(negative)
    area, low, high = auc_interval(labels, p)
    half = (math.log(high / (1 - high)) - math.log(low / (1 - low))) / 2
    quantile = t.ppf(0.975, min(len(positive), len(negative)) - 1)
    assert half * area * (1 - area) / quantile == pytest.approx(math.sqrt(variance), rel=0.02)


def test_a_perfect_auc_has_an_interval():
    labels = np.repeat([0, 1], 10)
    area, low, high = auc_interval(labels, np.linspace(0, 1, 20))
    assert (area, high) == (1, 1)
    assert 0.7 < low < 0.95


def test_an_auc_of_zero_has_the_mirrored_interval():
    labels = np.repeat([0, 1], 10)
    _, low, _ = auc_interval(labels, np.linspace(0, 1, 20))
    assert auc_interval(labels, np.linspace(1, 0, 20)) == pytest.approx((0, 0, 1 - low))


def test_auc_is_nan_if_a_class_is_absent():
    assert all(math.isnan(value) for value in auc_interval(np.ones(4, int), np.linspace(0, 1, 4)))


def test_the_auc_interval_has_its_nominal_coverage(make_drawn):
    """Logits have a standard deviation of 1.5 and means 3 apart, so the true area is Φ(3 / (1.5 √2)) = 0.921."""
    true = 0.5 * (1 + math.erf(3 / (1.5 * math.sqrt(2)) / math.sqrt(2)))
    held = [low <= true <= high for seed in range(300) for _, low, high in [auc_interval(*make_drawn(200, seed))]]
    assert 0.91 <= np.mean(held) <= 0.99


@pytest.mark.parametrize("skewed", [False, True])
@pytest.mark.parametrize("count", [20, 33, 60])
def test_grouped_intervals_cover_the_true_value(count, skewed):
    """The true accuracy is 0.9. Scores are normal with means 2 apart. Each group has about six correlated images."""
    random = np.random.default_rng(count + skewed)
    true = {"accuracy": 0.9, "auc": float(norm.cdf(2 / math.sqrt(2 * (0.8**2 + 1))))}
    inside = {name: [] for name in true}
    for _ in range(300):
        sizes = np.maximum(1, np.round(6 * random.lognormal(-0.5, 1, count))).astype(int) if skewed else [6] * count
        groups = np.repeat(np.arange(count), sizes)
        right = random.random(len(groups)) < random.beta(2.1, 0.7 / 3, count)[groups]
        labels = (random.random(count) < 0.4).astype(int)[groups]
        scores = 2 * labels + 0.8 * random.normal(size=count)[groups] + random.normal(size=len(groups))
        intervals = {"accuracy": proportion_interval(right, groups), "auc": auc_interval(labels, scores, groups)[1:]}
        for name, (low, high) in intervals.items():
            inside[name].append(low <= true[name] <= high)
    assert min(np.mean(each) for each in inside.values()) > 0.9


def test_holm_matches_statsmodels():
    values = [0.012, 0.3, 0.04, 0.001, 0.012]
    np.testing.assert_allclose(holm(values), multipletests(values, method="holm")[1])


def test_sign_flip_test_of_independent_images_matches_mcnemar():
    differences = np.repeat([1.0, -1.0, 0.0], [9, 2, 30])
    p = sign_flip_test(differences, np.arange(41))
    assert p == pytest.approx(binomtest(2, 11).pvalue)
    many = np.repeat([1.0, -1.0], [40, 22])
    assert sign_flip_test(many, np.arange(62)) == pytest.approx(binomtest(22, 62).pvalue, abs=0.008)


def test_the_interval_over_seeds_includes_the_variance_between_seeds():
    random = np.random.default_rng(0)
    steady = random.random((3, 400)) < 0.8
    shaky = np.stack([random.random(400) < share for share in (0.9, 0.9, 0.6)])
    widths = [np.diff(proportion_interval(runs, np.arange(400))) for runs in (steady, shaky)]
    assert widths[1] > 2 * widths[0]
