"""Every figure of one split: a plain mapping, as scores.json holds it."""

import math
from typing import Any

import numpy as np

from leaf.scoring.curves import calibration, expected_calibration_error, precision_recall_curve, roc_curve
from leaf.scoring.intervals import roc_area, wilson

_EPSILON = np.finfo(np.float64).eps


def predict(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Labels, int64 (N,): 1 where the probability of 1 reaches the threshold."""
    return (probabilities >= threshold).astype(np.int64)


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of −log of the true class's probability, natural log; probabilities are kept one float step from 0 and 1."""
    p = np.clip(probabilities, _EPSILON, 1 - _EPSILON)
    return float(-np.mean(np.where(labels == 1, np.log(p), np.log1p(-p))))


def confusion(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """[[true negatives, false positives], [false negatives, true positives]], int64 (2, 2)."""
    return np.bincount(2 * labels + predicted, minlength=4).reshape(2, 2)


def measure(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> dict[str, Any]:
    """All scores of a split of at least one image: labels 0/1 int (N,), probabilities of 1 float64 (N,).

    A figure that is not defined (recall of a class that is absent, say) is nan, and so null in JSON.
    """
    (tn, fp), (fn, tp) = table = confusion(labels, predict(probabilities, threshold))
    images, right = len(labels), int(tn + tp)
    low, high = wilson(right, images)
    area, area_low, area_high = roc_area(labels, probabilities)
    recall = _share(tp, tp + fn)
    bins = calibration(labels, probabilities)
    fpr, tpr, _ = roc_curve(labels, probabilities)
    along, precision = precision_recall_curve(labels, probabilities)
    return {
        "images": images,
        "accuracy": right / images,
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": (recall + _share(tn, tn + fp)) / 2,
        "precision": _share(tp, tp + fp),
        "recall": recall,
        "f1": _share(2 * tp, 2 * tp + fp + fn),
        "roc_auc": area,
        "roc_auc_low": area_low,
        "roc_auc_high": area_high,
        "log_loss": log_loss(labels, probabilities),
        "brier": float(np.mean(np.square(probabilities - labels))),
        "calibration_error": expected_calibration_error(bins),
        "confusion": table.tolist(),
        "roc": {"fpr": fpr.tolist(), "tpr": tpr.tolist()},
        "precision_recall": {"recall": along.tolist(), "precision": precision.tolist()},
        "calibration": bins,
    }


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else math.nan
