"""Test threshold selection, temperature scaling and the calibration error."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from leaf.evaluate.calibration import best_temperature, log_loss, with_temperature
from leaf.evaluate.metrics import best_threshold, compute_metrics


@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_maximizes_balanced_accuracy(make_drawn, seed):
    labels, p = make_drawn(40, seed)
    best = max(balanced_accuracy_score(labels, p >= cut) for cut in np.unique(p))
    assert balanced_accuracy_score(labels, p >= best_threshold(labels, p)) == pytest.approx(best)


def test_threshold_is_the_midpoint_of_the_separated_images():
    assert best_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.4, 0.9])) == pytest.approx(0.3)


def test_ties_go_to_the_threshold_nearest_one_half():
    # Three of the four images are classified correctly with either threshold.
    labels, p = np.array([1, 0, 1, 0]), np.array([0.9, 0.8, 0.45, 0.1])
    assert best_threshold(labels, p) == pytest.approx(0.275)


def test_threshold_is_inside_the_unit_interval():
    assert 0 < best_threshold(np.array([1, 0]), np.array([0.0, 1.0])) < 1


def test_threshold_is_one_half_for_a_single_class():
    assert best_threshold(np.ones(3, int), np.array([0.1, 0.2, 0.3])) == 0.5


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_recovered(temperature, classes):
    random = np.random.default_rng(0)
    honest = random.dirichlet(np.ones(classes), 20000)
    labels = (random.random((len(honest), 1)) > honest.cumsum(axis=1)[:, :-1]).sum(axis=1)
    shown = with_temperature(honest, 1 / temperature)
    assert best_temperature(labels, shown) == pytest.approx(temperature, rel=0.05)


def test_fitted_temperature_does_not_raise_the_log_loss(make_many):
    labels, p = make_many()
    assert log_loss(labels, with_temperature(p, best_temperature(labels, p))) <= log_loss(labels, p)


def test_temperature_keeps_the_predicted_class(make_many):
    _, p = make_many()
    np.testing.assert_array_equal(with_temperature(p, 4.0).argmax(axis=1), p.argmax(axis=1))


def calibrated(images, group_size, seed):
    """Sample labels for a calibrated model. Its predictions for a group are either all correct or all wrong."""
    random = np.random.default_rng(seed)
    groups = np.arange(images) // group_size
    confidence = random.beta(9, 1, images // group_size)[groups] * 0.5 + 0.5
    correct = random.random(images // group_size)[groups] < confidence
    return correct.astype(int), np.stack([1 - confidence, confidence], axis=1), groups


@pytest.mark.parametrize("group_size", [1, 6])
def test_calibrated_models_rarely_exceed_the_limit(group_size):
    exceeded = []
    for seed in range(100):
        labels, p, groups = calibrated(192, group_size, seed)
        found = compute_metrics(labels, p, 0.5, groups)
        exceeded.append(found["calibration_error"] > found["calibration_error_limit"])
    assert np.mean(exceeded) <= 0.12


def test_null_calibration_error_is_the_mean_error_of_calibrated_models():
    found = [compute_metrics(*calibrated(192, 1, seed)[:2], 0.5) for seed in range(100)]
    errors, nulls = ([each[key] for each in found] for key in ("calibration_error", "calibration_error_null"))
    assert np.mean(errors) == pytest.approx(np.mean(nulls), rel=0.1)


def test_an_overconfident_model_exceeds_the_limit():
    labels, p, groups = calibrated(192, 1, 0)
    found = compute_metrics(labels, with_temperature(p, 0.2), 0.5, groups)
    assert found["calibration_error"] > found["calibration_error_limit"]
