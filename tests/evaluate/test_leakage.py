"""Test the measurement of leakage with simulated results and with simple learners."""

from types import SimpleNamespace

import numpy as np
import pytest

from leaf.evaluate.baselines import cross_validated
from leaf.evaluate.leakage import measure_leak

GROUPS = np.repeat(np.arange(200), 5)


def answers(share, seed, repeats=3):
    return (np.random.default_rng(seed).random((repeats, len(GROUPS))) < share).astype(float)


def test_a_planted_leak_of_ten_points_is_found_with_its_interval():
    found = measure_leak(answers(0.9, 1), answers(0.8, 2), GROUPS)
    assert found.difference == pytest.approx(0.1, abs=0.02)
    assert found.low < 0.1 < found.high
    assert found.sentence.startswith("For this recipe, leakage raises the accuracy: +")


def test_identical_results_show_almost_no_effect():
    same = answers(0.9, 1)
    assert measure_leak(same, same, GROUPS).sentence.startswith("For this recipe, leakage has almost no effect: +0.0")


def test_too_few_images_are_not_distinguishable():
    few = slice(0, 100)
    found = measure_leak(answers(0.9, 1)[:, few], answers(0.9, 2)[:, few], GROUPS[few])
    assert found.effect == "has no distinguishable effect"


def test_images_removed_in_the_honest_run_are_not_counted():
    honest = answers(0.8, 2)
    honest[:, ::5] = np.nan
    found = measure_leak(answers(0.9, 1), honest, GROUPS)
    assert found.images == (1000, 800)
    assert found.honest == pytest.approx(np.nanmean(honest))


def test_correlated_groups_widen_the_interval():
    by_group = np.repeat(answers(0.9, 1)[:, ::5], 5, axis=1), np.repeat(answers(0.9, 2)[:, ::5], 5, axis=1)
    whole, apart = measure_leak(*by_group, GROUPS), measure_leak(*by_group, np.arange(len(GROUPS)))
    assert whole.high - whole.low > 1.5 * (apart.high - apart.low)


@pytest.fixture(scope="module")
def leaves():
    """Return features, labels and groups of 40 leaves with 5 images each.

    The features identify the leaf clearly but predict its label only weakly.
    """
    random = np.random.default_rng(3)
    labels = np.repeat(random.integers(0, 2, 40), 5)
    features = np.repeat(random.normal(size=(40, 20)), 5, axis=0) + random.normal(scale=0.2, size=(200, 20))
    features[:, 0] += 1.5 * labels
    return features, labels, np.repeat(np.arange(40), 5)


def test_a_nearest_neighbor_gains_from_split_groups(leaves):
    features, labels, groups = leaves
    split = cross_validated("neighbour", features, labels, np.arange(200), 5, 0)
    whole = cross_validated("neighbour", features, labels, groups, 5, 0)
    assert split.mean() > 0.95 > 0.85 > whole.mean()


def test_each_image_is_predicted_once_in_a_fold_without_its_group(leaves, monkeypatch):
    features, labels, groups = leaves
    predicted = []

    def learner(train, train_labels):
        def predict_proba(some):
            assert not set(map(tuple, np.floor(train[:, -1:]))) & set(map(tuple, np.floor(some[:, -1:])))
            predicted.append(len(some))
            return np.tile([1.0, 0.0], (len(some), 1))

        return SimpleNamespace(predict_proba=predict_proba)

    monkeypatch.setitem(cross_validated.__globals__["LEARNERS"], "none", learner)
    right = cross_validated("none", np.column_stack([features, groups]), labels, groups, 5, 0)
    assert sum(predicted) == 200
    assert right.tolist() == (labels == 0).tolist()
