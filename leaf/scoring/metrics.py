"""Every figure of one split: a plain mapping, as scores.json holds it."""

import math
from typing import Any, TypedDict

import numpy as np

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


BINS = 10


class Bin(TypedDict):
    """One bar of the calibration figure: images whose confidence lies from `low` to `high`."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def roc_curve(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False and true positive rates and the thresholds that give them, float64, from (0, 0) to (1, 1).

    Labels 0/1 (N,), probabilities of 1 (N,). Corners alone, no points on a straight line between them. The first
    threshold lies just above every probability: finite, since plotting tools do not read infinity. A rate of an absent
    class is nan.
    """
    thresholds, positives, negatives = _counts(labels, probabilities)
    corner = np.ones(len(thresholds), bool)
    corner[1:-1] = (np.diff(positives, 2) != 0) | (np.diff(negatives, 2) != 0)
    with np.errstate(invalid="ignore"):
        rates = negatives / negatives[-1], positives / positives[-1]
    return rates[0][corner], rates[1][corner], thresholds[corner]


def precision_recall_curve(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall, ascending, and the precision at it, float64; one point per distinct probability."""
    _, positives, negatives = _counts(labels, probabilities)
    with np.errstate(invalid="ignore"):
        return positives[1:] / positives[-1], positives[1:] / (positives[1:] + negatives[1:])


def _counts(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds, descending, and the positives and negatives at or above each; first one above every probability."""
    order = np.argsort(-probabilities, kind="stable")
    ordered = probabilities[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of each run of equal probabilities
    positives = np.cumsum(labels[order] == 1)[last]
    negatives = last + 1 - positives
    thresholds = np.append(np.nextafter(ordered[0], 2), ordered[last])
    return thresholds, np.append(0, positives), np.append(0, negatives)


def calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> list[Bin]:
    """Images by the probability of the likelier class, in equal steps from 0.5 to 1; empty bins are left out.

    `confidence` is the mean of those probabilities, `accuracy` the share in which the likelier class is the true one.
    """
    confidence = np.maximum(probabilities, 1 - probabilities)
    right = (probabilities >= 0.5) == (labels == 1)
    edges = np.linspace(0.5, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    return [
        Bin(
            low=float(edges[index]),
            high=float(edges[index + 1]),
            images=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(right[inside].mean()),
        )
        for index in range(bins)
        if (inside := place == index).any()
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Mean gap between confidence and accuracy over the bins, weighted by their images (Guo 2017)."""
    images = sum(row["images"] for row in bins)
    return sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / images
