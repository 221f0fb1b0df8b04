"""Test that every metric agrees with scikit-learn."""

import math

import numpy as np
import pytest
from sklearn import metrics

from leaf.evaluate.calibration import calibration_bins, expected_calibration_error
from leaf.evaluate.metrics import compute_metrics, precision_recall_curve, roc_curve, thinned, worst_pairs


def both(p):
    """Return probabilities (N, 2), given those of the second class."""
    return np.stack([1 - p, p], axis=1)


def bins_of(labels, p):
    return calibration_bins(labels, both(p), (p >= 0.5).astype(int))


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
def test_scores_of_predictions_match_scikit_learn(drawn, key, theirs, threshold):
    labels, p = drawn
    assert compute_metrics(labels, both(p), threshold)[key] == pytest.approx(theirs(labels, p >= threshold))


def test_confusion_matrix_matches_scikit_learn(drawn):
    labels, p = drawn
    assert compute_metrics(labels, both(p), 0.3)["confusion"] == metrics.confusion_matrix(labels, p >= 0.3).tolist()


@pytest.mark.parametrize(
    ("key", "theirs"),
    [("roc_auc", metrics.roc_auc_score), ("log_loss", metrics.log_loss), ("brier", metrics.brier_score_loss)],
)
def test_scores_of_probabilities_match_scikit_learn(drawn, key, theirs):
    labels, p = drawn
    assert compute_metrics(labels, both(p), 0.5)[key] == pytest.approx(theirs(labels, p))


def test_a_certain_mistake_has_a_finite_log_loss():
    assert compute_metrics(np.array([0, 1]), both(np.array([1.0, 0.9])), 0.5)["log_loss"] < 40


def test_a_probability_at_the_threshold_counts_as_the_second_class():
    assert compute_metrics(np.array([0, 1]), both(np.array([0.2, 0.5])), 0.5)["accuracy"] == 1


def test_undefined_scores_are_nan():
    scores = compute_metrics(np.zeros(4, int), both(np.full(4, 0.1)), 0.5)
    assert all(math.isnan(scores[key]) for key in ("recall", "precision", "f1", "roc_auc", "balanced_accuracy"))


def test_roc_curve_matches_scikit_learn(drawn):
    fpr, tpr, _ = roc_curve(*drawn)
    theirs = metrics.roc_curve(*drawn)
    corners = set(zip(fpr.round(12), tpr.round(12), strict=True))
    assert corners == set(zip(theirs[0].round(12), theirs[1].round(12), strict=True))
    assert metrics.auc(fpr, tpr) == pytest.approx(metrics.roc_auc_score(*drawn))


def test_each_roc_threshold_reproduces_its_rates(drawn):
    labels, p = drawn
    for fpr, tpr, threshold in zip(*roc_curve(labels, p), strict=True):
        assert (p >= threshold)[labels == 1].mean() == pytest.approx(tpr)
        assert (p >= threshold)[labels == 0].mean() == pytest.approx(fpr)


def test_the_first_roc_threshold_is_finite_and_has_no_positives():
    _, _, thresholds = roc_curve(np.array([0, 1]), np.array([0.5, 1.0]))
    assert 1 < thresholds[0] < np.inf


def test_a_thinned_curve_keeps_its_ends_and_shape():
    curve = np.linspace(0, 1, 12_345) ** 2
    np.testing.assert_array_equal(thinned(curve[:5000]), curve[:5000])
    short = thinned(curve)
    assert (len(short), short[0], short[-1]) == (5000, 0, 1)
    np.testing.assert_allclose(short, np.linspace(0, 1, 5000) ** 2, atol=1e-3)


def test_precision_recall_curve_matches_scikit_learn(drawn):
    recall, precision = precision_recall_curve(*drawn)
    their_precision, their_recall, _ = metrics.precision_recall_curve(*drawn)
    np.testing.assert_allclose(recall, their_recall[:-1][::-1])
    np.testing.assert_allclose(precision, their_precision[:-1][::-1])


def test_confident_and_always_correct_is_calibrated():
    bins = bins_of(np.array([0, 1]), np.array([0.0, 1.0]))
    assert expected_calibration_error(bins) == 0


def test_the_calibration_error_of_confident_and_half_correct_is_the_gap():
    labels, p = np.array([0, 1, 0, 1]), np.array([0.9, 0.9, 0.9, 0.9])
    assert expected_calibration_error(bins_of(labels, p)) == pytest.approx(0.4)


def test_every_image_is_in_one_calibration_bin(drawn):
    assert sum(row["images"] for row in bins_of(*drawn)) == len(drawn[0])


@pytest.mark.parametrize("classes", [3, 9, 38])
@pytest.mark.parametrize(
    ("key", "theirs"),
    [
        ("accuracy", metrics.accuracy_score),
        ("balanced_accuracy", metrics.balanced_accuracy_score),
        ("macro_recall", lambda *two: metrics.recall_score(*two, average="macro")),
        ("precision", lambda *two: metrics.precision_score(*two, average="macro")),
        ("f1", lambda *two: metrics.f1_score(*two, average="macro")),
    ],
)
def test_multiclass_scores_match_scikit_learn(make_many, classes, key, theirs):
    labels, p = make_many(1200, classes)
    assert compute_metrics(labels, p, 0.5)[key] == pytest.approx(theirs(labels, p.argmax(axis=1)))


@pytest.mark.parametrize("classes", [3, 9])
@pytest.mark.parametrize(
    ("key", "theirs"),
    [
        ("log_loss", metrics.log_loss),
        ("roc_auc", lambda *two: metrics.roc_auc_score(*two, multi_class="ovr")),
        ("brier", metrics.brier_score_loss),
    ],
)
def test_multiclass_probability_scores_match_scikit_learn(make_many, classes, key, theirs):
    labels, p = make_many(600, classes)
    assert compute_metrics(labels, p, 0.5)[key] == pytest.approx(theirs(labels, p))


@pytest.mark.parametrize("k", [2, 3])
def test_top_k_accuracy_is_reported_for_more_than_five_classes(make_many, k):
    labels, p = make_many(400, 9)
    assert compute_metrics(labels, p, 0.5)[f"top_{k}_accuracy"] == metrics.top_k_accuracy_score(labels, p, k=k)
    assert f"top_{k}_accuracy" not in compute_metrics(*make_many(400, 5), 0.5)


def test_each_class_has_its_recall_and_precision_with_intervals(make_many):
    labels, p = make_many(300, 4)
    said = p.argmax(axis=1)
    for label, each in enumerate(compute_metrics(labels, p, 0.5)["classes"]):
        assert each["images"] == 75
        assert each["recall"] == pytest.approx((said == label)[labels == label].mean())
        assert each["precision"] == pytest.approx((labels == label)[said == label].mean())
        for name in ("recall", "precision"):
            assert each[f"{name}_low"] < each[name] < each[f"{name}_high"]


def test_the_most_frequent_errors_come_first():
    pairs = worst_pairs([[8, 1, 1], [0, 6, 4], [3, 0, 7]], ["a", "b", "c"], most=3)
    assert [(each["label"], each["predicted"], each["images"]) for each in pairs] == [
        ("b", "c", 4),
        ("c", "a", 3),
        ("a", "b", 1),
    ]
    assert pairs[0]["share"] == 0.4


def test_calibration_of_many_classes_uses_the_most_probable_class():
    p = np.array([[0.7, 0.2, 0.1]] * 10)
    bins = calibration_bins(np.array([0] * 4 + [1] * 6), p, p.argmax(axis=1))
    assert expected_calibration_error(bins) == pytest.approx(0.3)
