"""Every figure against scikit-learn's."""

import math

import numpy as np
import pytest
from sklearn import metrics

from leaf.scoring.calibration import calibration_bins, expected_calibration_error
from leaf.scoring.metrics import compute_metrics, precision_recall_curve, roc_curve


@pytest.mark.parametrize(
    ("key", "theirs"),
    [
        ("accuracy", metrics.accuracy_score),
        ("balanced_accuracy", metrics.balanced_accuracy_score),
        ("precision", metrics.precision_score),
        ("recall", metrics.recall_score),
        ("f1", metrics.f1_score),
    ],
)
@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_figures_of_predictions_equal_scikit_learns(drawn, key, theirs, threshold):
    labels, p = drawn
    assert compute_metrics(labels, p, threshold)[key] == pytest.approx(theirs(labels, p >= threshold))


def test_the_confusion_matrix_equals_scikit_learns(drawn):
    labels, p = drawn
    assert compute_metrics(labels, p, 0.3)["confusion"] == metrics.confusion_matrix(labels, p >= 0.3).tolist()


@pytest.mark.parametrize(
    ("key", "theirs"),
    [("roc_auc", metrics.roc_auc_score), ("log_loss", metrics.log_loss), ("brier", metrics.brier_score_loss)],
)
def test_figures_of_probabilities_equal_scikit_learns(drawn, key, theirs):
    assert compute_metrics(*drawn, 0.5)[key] == pytest.approx(theirs(*drawn))


def test_a_certain_mistake_has_a_finite_log_loss():
    assert compute_metrics(np.array([0, 1]), np.array([1.0, 0.9]), 0.5)["log_loss"] < 40


def test_a_probability_at_the_threshold_counts_as_the_second_class():
    assert compute_metrics(np.array([0, 1]), np.array([0.2, 0.5]), 0.5)["accuracy"] == 1


def test_what_is_not_defined_is_not_a_number():
    scores = compute_metrics(np.zeros(4, int), np.full(4, 0.1), 0.5)
    assert all(math.isnan(scores[key]) for key in ("recall", "precision", "f1", "roc_auc", "balanced_accuracy"))


def test_the_roc_curve_is_scikit_learns(drawn):
    fpr, tpr, _ = roc_curve(*drawn)
    theirs = metrics.roc_curve(*drawn)
    corners = set(zip(fpr.round(12), tpr.round(12), strict=True))
    assert corners == set(zip(theirs[0].round(12), theirs[1].round(12), strict=True))
    assert metrics.auc(fpr, tpr) == pytest.approx(metrics.roc_auc_score(*drawn))


def test_each_roc_threshold_gives_its_rates(drawn):
    labels, p = drawn
    for fpr, tpr, threshold in zip(*roc_curve(labels, p), strict=True):
        assert (p >= threshold)[labels == 1].mean() == pytest.approx(tpr)
        assert (p >= threshold)[labels == 0].mean() == pytest.approx(fpr)


def test_the_first_roc_threshold_is_finite_and_lets_nothing_pass():
    _, _, thresholds = roc_curve(np.array([0, 1]), np.array([0.5, 1.0]))
    assert 1 < thresholds[0] < np.inf


def test_the_precision_recall_curve_is_scikit_learns(drawn):
    recall, precision = precision_recall_curve(*drawn)
    their_precision, their_recall, _ = metrics.precision_recall_curve(*drawn)
    np.testing.assert_allclose(recall, their_recall[:-1][::-1])
    np.testing.assert_allclose(precision, their_precision[:-1][::-1])


def test_confident_and_always_right_is_calibrated():
    bins = calibration_bins(np.array([0, 1]), np.array([0.0, 1.0]))
    assert expected_calibration_error(bins) == 0


def test_confident_and_half_right_is_out_by_its_confidence():
    labels, p = np.array([0, 1, 0, 1]), np.array([0.9, 0.9, 0.9, 0.9])
    assert expected_calibration_error(calibration_bins(labels, p)) == pytest.approx(0.4)


def test_no_image_is_lost_between_calibration_bins(drawn):
    assert sum(row["images"] for row in calibration_bins(*drawn)) == len(drawn[0])
