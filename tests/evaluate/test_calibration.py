"""What is chosen on validation: the threshold and the temperature."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from leaf.evaluate.metrics import best_temperature, best_threshold, log_loss, with_temperature


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_has_a_better_balanced_accuracy(make_drawn, seed):
    labels, p = make_drawn(40, seed)
    best = max(balanced_accuracy_score(labels, p >= cut) for cut in np.unique(p))
    assert balanced_accuracy_score(labels, p >= best_threshold(labels, p)) == pytest.approx(best)


def test_the_threshold_stands_half_way_between_the_images_it_parts():
    assert best_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.4, 0.9])) == pytest.approx(0.3)


def test_of_equal_thresholds_the_one_nearest_a_half_is_taken():
    labels, p = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.45, 0.1])  # three of four right either way
    assert best_threshold(labels, p) == pytest.approx(0.275)


def test_the_threshold_lies_between_0_and_1_for_useless_probabilities():
    assert 0 < best_threshold(np.array([1, 0]), np.array([0.0, 1.0])) < 1


def test_one_class_alone_keeps_a_half():
    assert best_threshold(np.ones(3, int), np.array([0.1, 0.2, 0.3])) == 0.5


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found_again(temperature, classes):
    random = np.random.default_rng(0)
    honest = random.dirichlet(np.ones(classes), 20000)
    labels = (random.random((len(honest), 1)) > honest.cumsum(axis=1)[:, :-1]).sum(axis=1)
    shown = with_temperature(honest, 1 / temperature)
    assert best_temperature(labels, shown) == pytest.approx(temperature, rel=0.05)


def test_temperature_never_raises_the_log_loss_it_is_fitted_on(make_many):
    labels, p = make_many()
    assert log_loss(labels, with_temperature(p, best_temperature(labels, p))) <= log_loss(labels, p)


def test_temperature_makes_no_other_class_the_likeliest(make_many):
    _, p = make_many()
    np.testing.assert_array_equal(with_temperature(p, 4.0).argmax(axis=1), p.argmax(axis=1))
