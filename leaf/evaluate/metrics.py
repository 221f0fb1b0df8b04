"""Classification metrics of a split with 95% intervals, and threshold selection.

`labels` are int (N,), 0 … C − 1; `probabilities` are float64 (N, C), or (N,) for the second of two classes.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from leaf.evaluate.calibration import EPSILON, calibration_bins, calibration_null, expected_calibration_error, log_loss
from leaf.evaluate.statistics import auc_interval, proportion_interval

_MANY = 5  # top-2 and top-3 accuracy are reported for more than this number of classes


def predict(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Return the predicted labels, int64 (N,).

    With two classes, the second is predicted if its probability is at least `threshold`. With more, the most probable
    class is predicted.
    """
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= threshold).astype(np.int64)
    return probabilities.argmax(axis=1)


def compute_metrics(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, groups: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the metrics of a non-empty split for scores.json.

    With two classes, precision, recall, f1 and the curves refer to the second class. With more, they are macro
    averages, and `roc_auc` is one-vs-rest. Undefined metrics, such as the recall of an absent class, are nan. The
    intervals account for `groups` (N,); by default, each image is its own group.
    """
    count = probabilities.shape[1]
    predicted, most_probable = predict(probabilities, threshold), predict(probabilities, 0.5)
    table = np.bincount(count * labels + predicted, minlength=count**2).reshape(count, count)
    groups = np.arange(len(labels)) if groups is None else groups
    low, high = proportion_interval(predicted == labels, groups)
    classes = [_one_class(labels, predicted, groups, label) for label in range(count)]
    bins = calibration_bins(labels, probabilities, most_probable)
    expected, limit = calibration_null(bins, most_probable == labels, probabilities.max(axis=1), groups)
    chosen = classes[1:] if count == 2 else classes
    return {
        "images": len(labels),
        "groups": len(np.unique(groups)),
        "accuracy": int(table.trace()) / len(labels),
        "accuracy_low": low,
        "accuracy_high": high,
        **dict.fromkeys(("balanced_accuracy", "macro_recall"), float(np.mean([each["recall"] for each in classes]))),
        **{key: float(np.mean([each[key] for each in chosen])) for key in ("precision", "recall", "f1")},
        "log_loss": log_loss(labels, probabilities),
        "calibration_error": expected_calibration_error(bins),
        "calibration_error_null": expected,
        "calibration_error_limit": limit,
        "confusion": table.tolist(),
        "classes": classes,
        "calibration": bins,
        **(_of_two(labels, probabilities[:, 1], groups) if count == 2 else _of_many(labels, probabilities)),
    }


def _one_class(labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, label: int) -> dict[str, Any]:
    of, chosen = labels == label, predicted == label
    hits, true, named = int((of & chosen).sum()), int(of.sum()), int(chosen.sum())
    figures: dict[str, Any] = {"images": true, "predicted": named, "f1": _share(2 * hits, true + named)}
    for name, whole in (("recall", of), ("precision", chosen)):
        figures[name] = _share(hits, int(whole.sum()))
        figures[f"{name}_low"], figures[f"{name}_high"] = proportion_interval((of & chosen)[whole], groups[whole])
    return figures


def _of_two(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    area = auc_interval(labels, probabilities, groups)
    fpr, tpr, _ = roc_curve(labels, probabilities)
    recall, precision = precision_recall_curve(labels, probabilities)
    return {
        **dict(zip(("roc_auc", "roc_auc_low", "roc_auc_high"), area, strict=True)),
        "brier": float(np.mean(np.square(probabilities - labels))),
        "roc": {"fpr": thinned(fpr).tolist(), "tpr": thinned(tpr).tolist()},
        "precision_recall": {"recall": thinned(recall).tolist(), "precision": thinned(precision).tolist()},
    }


def thinned(curve: np.ndarray, most: int = 5000) -> np.ndarray:
    """Return at most `most` evenly spaced points of a curve (N,), including both ends."""
    return curve[np.linspace(0, len(curve) - 1, min(most, len(curve))).astype(np.int64)]


def _of_many(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    count = probabilities.shape[1]
    truth = np.eye(count)[labels]
    areas = [auc_interval(truth[:, label], probabilities[:, label])[0] for label in range(count)]
    own = probabilities[np.arange(len(labels)), labels][:, None]
    higher, tied = (probabilities > own).sum(axis=1), (probabilities == own).sum(axis=1)
    # Classes with equal probabilities are equally likely to be among the top k.
    near = {f"top_{k}_accuracy": float(np.mean(np.clip((k - higher) / tied, 0, 1))) for k in (2, 3) if count > _MANY}
    return {
        "roc_auc": float(np.mean(areas)),
        "brier": float(np.square(probabilities - truth).sum(axis=1).mean()),
        **near,
    }


def worst_pairs(confusion: Sequence[Sequence[int]], classes: Sequence[str], most: int = 10) -> list[dict[str, Any]]:
    """Return the most frequent errors in a confusion matrix (C, C), each with its share of the true class's images."""
    table = np.array(confusion)
    wrong = table - np.diag(table.diagonal())
    pairs = np.argwhere(wrong)
    found = []
    for label, predicted in pairs[np.argsort(-wrong[tuple(pairs.T)], kind="stable")[:most]].tolist():
        images = int(wrong[label, predicted])
        share = _share(images, int(table[label].sum()))
        found.append({"label": classes[label], "predicted": classes[predicted], "images": images, "share": share})
    return found


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else math.nan


def roc_curve(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return false and true positive rates with their thresholds, float64, from (0, 0) to (1, 1).

    Points on a straight line between two others are dropped. Unlike in scikit-learn, the first threshold is finite, so
    plotting tools accept it, and the rate of an absent class is nan without a warning.
    """
    false, true, thresholds = _counts(labels, probabilities)
    false, true = np.append(0, false), np.append(0, true)
    thresholds = np.append(np.nextafter(thresholds[0], 2), thresholds)
    corner = np.ones(len(thresholds), bool)
    corner[1:-1] = (np.diff(true, 2) != 0) | (np.diff(false, 2) != 0)
    with np.errstate(invalid="ignore"):
        return (false / false[-1])[corner], (true / true[-1])[corner], thresholds[corner]


def best_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the threshold with the highest balanced accuracy, or 0.5 if only one class is present.

    The threshold is the midpoint of the two probabilities it separates, so rounding on another machine does not change
    a prediction. If several thresholds are equally good, the one nearest to 0.5 is returned.
    """
    if len(np.unique(labels)) < 2:
        return 0.5
    fpr, tpr, thresholds = roc_curve(labels, probabilities)
    gain = tpr - fpr  # balanced accuracy is (1 + tpr − fpr) / 2
    best = thresholds[gain >= gain.max() - 1e-12]
    values = np.unique(probabilities)
    below = np.append(0.0, values)[np.searchsorted(values, best)]  # the next lower probability, or 0
    middles = np.clip((np.minimum(best, 1) + below) / 2, EPSILON, 1 - EPSILON)
    return float(middles[np.abs(middles - 0.5).argmin()])


def precision_recall_curve(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision, float64, for each distinct probability as a threshold, in order of recall.

    Unlike in scikit-learn, there is no point (0, 1), and the recall of an absent class is nan.
    """
    false, true, _ = _counts(labels, probabilities)
    with np.errstate(invalid="ignore"):
        return true / true[-1], true / (true + false)


def _counts(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the numbers of false and true positives at each threshold, and the thresholds.

    The thresholds are the distinct probabilities in descending order.
    """
    from sklearn.metrics import confusion_matrix_at_thresholds  # slow to import

    _, false, _, true, thresholds = confusion_matrix_at_thresholds(labels, probabilities, pos_label=1)
    return false, true, thresholds
