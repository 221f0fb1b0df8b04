"""Every figure of one split, as scores.json holds it, with 95 % intervals; how far probabilities are from the shares
that come true, and the temperature that corrects them."""

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from scipy.optimize import minimize_scalar

from leaf.evaluate.statistics import auc_interval, proportion_interval

_EPSILON = np.finfo(np.float64).eps
_TEMPERATURES = 0.05, 20.0
BINS = 10
_MANY = 5  # classes; of more, the second and third guess count too


def predict(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Predicted labels, int64 (N,), of probabilities float64 (N, C): the likeliest class.

    Of two classes the second where its probability reaches the threshold.
    """
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= threshold).astype(np.int64)
    return probabilities.argmax(axis=1)


def compute_metrics(
    labels: np.ndarray, probabilities: np.ndarray, threshold: float, groups: np.ndarray | None = None
) -> dict[str, Any]:
    """All metrics of a split of at least one image: labels 0 … C − 1 int (N,), probabilities float64 (N, C).

    `groups` (N,) marks images of one plant, which intervals do not count as independent; by default every image is its
    own group. With two classes, precision, recall, f1 and the curves are those of the second; with more, they are macro
    averages, and `roc_auc` is one-vs-rest. Undefined metrics, such as the recall of an absent class, are nan.
    """
    count = probabilities.shape[1]
    predicted = predict(probabilities, threshold)
    table = np.bincount(count * labels + predicted, minlength=count**2).reshape(count, count)
    groups = np.arange(len(labels)) if groups is None else groups
    images, right = len(labels), int(table.trace())
    low, high = proportion_interval(predicted == labels, groups)
    classes = [_one_class(labels, predicted, groups, label) for label in range(count)]
    bins = calibration_bins(labels, probabilities, predict(probabilities, 0.5))
    together = _of_two(labels, probabilities[:, 1], groups) if count == 2 else _of_many(labels, probabilities)
    chosen = classes[1:] if count == 2 else classes
    return {
        "images": images,
        "groups": len(np.unique(groups)),
        "accuracy": right / images,
        "accuracy_low": low,
        "accuracy_high": high,
        **dict.fromkeys(("balanced_accuracy", "macro_recall"), float(np.mean([each["recall"] for each in classes]))),
        **{key: float(np.mean([each[key] for each in chosen])) for key in ("precision", "recall", "f1")},
        "log_loss": log_loss(labels, probabilities),
        "calibration_error": expected_calibration_error(bins),
        "confusion": table.tolist(),
        "classes": classes,
        "calibration": bins,
        **together,
    }


def _one_class(labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, label: int) -> dict[str, Any]:
    """How well one class is found, with intervals; all arguments (N,), and the class."""
    of, said = labels == label, predicted == label
    hits, true, named = int((of & said).sum()), int(of.sum()), int(said.sum())
    figures: dict[str, Any] = {"images": true, "predicted": named, "f1": _share(2 * hits, true + named)}
    for name, whole in (("recall", of), ("precision", said)):
        figures[name] = _share(hits, int(whole.sum()))
        figures[f"{name}_low"], figures[f"{name}_high"] = proportion_interval((of & said)[whole], groups[whole])
    return figures


def _of_two(labels: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """What only two classes have: the curves of the second, with probabilities (N,)."""
    area, area_low, area_high = auc_interval(labels, probabilities, groups)
    fpr, tpr, _ = roc_curve(labels, probabilities)
    recall, precision = precision_recall_curve(labels, probabilities)
    return {
        "roc_auc": area,
        "roc_auc_low": area_low,
        "roc_auc_high": area_high,
        "brier": float(np.mean(np.square(probabilities - labels))),
        "roc": {"fpr": thinned(fpr).tolist(), "tpr": thinned(tpr).tolist()},
        "precision_recall": {"recall": thinned(recall).tolist(), "precision": thinned(precision).tolist()},
    }


def thinned(curve: np.ndarray, most: int = 5000) -> np.ndarray:
    """At most `most` points of a curve (N,), its ends among them: more than a picture or a file can use."""
    if len(curve) <= most:
        return curve
    return curve[np.linspace(0, len(curve) - 1, most).astype(np.int64)]


def _of_many(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """What only more than two classes have: areas against the rest, and of more than five the share near the top."""
    count = probabilities.shape[1]
    truth = np.eye(count)[labels]
    areas = [auc_interval(truth[:, label], probabilities[:, label])[0] for label in range(count)]
    own = probabilities[np.arange(len(labels)), labels][:, None]
    higher, tied = (probabilities > own).sum(axis=1), (probabilities == own).sum(axis=1)
    # Of tied classes, each is equally likely to be among the first k.
    near = {f"top_{k}_accuracy": float(np.mean(np.clip((k - higher) / tied, 0, 1))) for k in (2, 3) if count > _MANY}
    return {
        "roc_auc": float(np.mean(areas)),
        "brier": float(np.square(probabilities - truth).sum(axis=1).mean()),
        **near,
    }


def worst_pairs(confusion: Sequence[Sequence[int]], classes: Sequence[str], most: int = 10) -> list[dict[str, Any]]:
    """The commonest mistakes of a confusion table (C, C): label, predicted, images, and their share of the label's."""
    table = np.array(confusion)
    wrong = table - np.diag(table.diagonal())
    pairs = np.argwhere(wrong)
    order = np.argsort(-wrong[tuple(pairs.T)], kind="stable")[:most]
    return [
        {
            "label": classes[label],
            "predicted": classes[said],
            "images": int(wrong[label, said]),
            "share": _share(int(wrong[label, said]), int(table[label].sum())),
        }
        for label, said in pairs[order].tolist()
    ]


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else math.nan


def roc_curve(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False and true positive rates and the thresholds that give them, float64, from (0, 0) to (1, 1).

    Labels 0/1 (N,), probabilities of 1 (N,). Corners alone, no points on a straight line between them. Unlike
    scikit-learn's, the first threshold is finite, just above every probability, since plotting tools do not read
    infinity; and a rate of an absent class is nan without a warning.
    """
    false, true, thresholds = _counts(labels, probabilities)
    false, true = np.append(0, false), np.append(0, true)
    thresholds = np.append(np.nextafter(thresholds[0], 2), thresholds)
    corner = np.ones(len(thresholds), bool)
    corner[1:-1] = (np.diff(true, 2) != 0) | (np.diff(false, 2) != 0)
    with np.errstate(invalid="ignore"):
        return (false / false[-1])[corner], (true / true[-1])[corner], thresholds[corner]


def best_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold of the best balanced accuracy: labels 0/1 (N,), probabilities of 1 (N,); 0.5 with one class alone.

    It lies half-way between the two probabilities that it separates, so that a rounding error on another machine
    changes no prediction. Of several as good, the one nearest to 0.5.
    """
    if len(np.unique(labels)) < 2:
        return 0.5
    fpr, tpr, thresholds = roc_curve(labels, probabilities)
    gain = tpr - fpr  # balanced accuracy is (1 + tpr − fpr) / 2
    best = thresholds[gain >= gain.max() - 1e-12]
    values = np.unique(probabilities)
    below = np.append(0.0, values)[np.searchsorted(values, best)]  # the next lower probability, 0 under the lowest
    middles = np.clip((np.minimum(best, 1) + below) / 2, _EPSILON, 1 - _EPSILON)
    return float(middles[np.abs(middles - 0.5).argmin()])


def precision_recall_curve(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall, ascending, and the precision at it, float64; one point per distinct probability.

    Unlike scikit-learn's, it has no added point (0, 1), and the recall of an absent class is nan, not 1.
    """
    false, true, _ = _counts(labels, probabilities)
    with np.errstate(invalid="ignore"):
        return true / true[-1], true / (true + false)


def _counts(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False and true positives at each distinct probability as the threshold, and the thresholds, descending."""
    from sklearn.metrics import confusion_matrix_at_thresholds  # seconds to import that an interval need not pay

    _, false, _, true, thresholds = confusion_matrix_at_thresholds(labels, probabilities, pos_label=1)
    return false, true, thresholds


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of −log of the true class's probability, natural log; probabilities are kept one float step from 0 and 1.

    Labels 0 … C − 1 int (N,), probabilities float64 (N, C).
    """
    p = np.clip(probabilities, _EPSILON, 1 - _EPSILON)
    own = np.log(p[np.arange(len(labels)), labels])
    if p.shape[1] == 2:  # the first of two is what the second leaves, which this keeps exact near 1
        own = np.where(labels == 1, own, np.log1p(-p[:, 1]))
    return float(-np.mean(own))


class Bin(TypedDict):
    """One bar of the calibration figure: images whose confidence lies from `low` to `high`."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def calibration_bins(
    labels: np.ndarray, probabilities: np.ndarray, likeliest: np.ndarray, bins: int = BINS
) -> list[Bin]:
    """Images by the probability of the likeliest class, in equal steps from 1/C to 1; empty bins are left out.

    Labels and likeliest classes int (N,), probabilities float64 (N, C). `confidence` is the mean of those
    probabilities, `accuracy` the share in which the likeliest class is the true one.
    """
    confidence = probabilities.max(axis=1)
    right = likeliest == labels
    edges = np.linspace(1 / probabilities.shape[1], 1, bins + 1)
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


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (N, C) as they would be with the logits divided by `temperature`."""
    powers = np.clip(probabilities, _EPSILON, 1) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def best_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature, 0.05 to 20, of the lowest log loss (Guo 2017); `probabilities` are those at temperature 1."""
    low, high = (math.log(limit) for limit in _TEMPERATURES)
    found = minimize_scalar(
        lambda log: log_loss(labels, with_temperature(probabilities, math.exp(log))),
        bounds=(low, high),
        method="bounded",
    )
    return float(math.exp(found.x))
