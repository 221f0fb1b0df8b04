"""Every figure of one split, as scores.json holds it, with 95 % intervals; how far probabilities are from the shares
that come true, and the temperature that corrects them."""

import math
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import rankdata, t

_EPSILON = np.finfo(np.float64).eps
_TEMPERATURES = 0.05, 20.0
BINS = 10
_MANY = 5  # classes; of more, the second and third guess count too
Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


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

    `groups` (N,) says which images are of one plant, or one photograph; each is its own where it is None. Intervals of
    accuracy, recall and precision know them (`share_interval`), that of the area under the ROC curve does not.

    Of two classes precision, recall, f1 and the curves are the second's; of more they are the means over the classes,
    and `roc_auc` that of each class against the rest. A figure that is not defined (recall of a class that is absent,
    say) is nan, and so null in JSON.
    """
    count = probabilities.shape[1]
    predicted = predict(probabilities, threshold)
    table = np.bincount(count * labels + predicted, minlength=count**2).reshape(count, count)
    groups = np.arange(len(labels)) if groups is None else groups
    images, right = len(labels), int(table.trace())
    low, high = share_interval(predicted == labels, groups)
    classes = [_one_class(labels, predicted, groups, label) for label in range(count)]
    bins = calibration_bins(labels, probabilities, predict(probabilities, 0.5))
    together = _of_two(labels, probabilities[:, 1]) if count == 2 else _of_many(labels, probabilities)
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
        figures[f"{name}_low"], figures[f"{name}_high"] = share_interval((of & said)[whole], groups[whole])
    return figures


def _of_two(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """What only two classes have: the curves of the second, with probabilities (N,)."""
    area, area_low, area_high = roc_area(labels, probabilities)
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
    areas = [roc_area(truth[:, label], probabilities[:, label])[0] for label in range(count)]
    place = (probabilities > probabilities[np.arange(len(labels)), labels][:, None]).sum(axis=1)  # 0 is the likeliest
    near = {f"top_{k}_accuracy": float(np.mean(place < k)) for k in (2, 3) if count > _MANY}
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


def share_interval(right: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the share of `right`, 0..1 (N,), where images of one of `groups` (N,) may be alike.

    Wilson's, for as many single images as tell as much as these (Rao and Scott 1992): the variance between groups says
    how many, from the number of groups, where all images of a group are alike, up to that of the images.
    """
    if not len(right):
        return math.nan, math.nan
    share, error = float(np.mean(right)), standard_error(right, groups)
    number = float(len(np.unique(groups)))
    if error and number < len(right):
        number = min(len(right), share * (1 - share) / error**2)
    return wilson(share * number, number)


def standard_error(values: np.ndarray, groups: np.ndarray) -> float:
    """Standard error of the mean of `values` (N,) where the images of one of `groups` (N,) hang together; 0 of one."""
    _, place = np.unique(groups, return_inverse=True)
    off = np.bincount(place, weights=values - np.mean(values))
    return float(np.sqrt(np.sum(off**2) * len(off) / max(len(off) - 1, 1)) / len(values))


def wilson(right: float, images: float) -> tuple[float, float]:
    """Wilson's score interval (1927) for `right` of `images`, which need not be whole numbers; (nan, nan) of none.

    It stays inside 0..1 and keeps its width where everything is right, unlike the textbook ± 1.96 standard errors.
    """
    if images == 0:
        return math.nan, math.nan
    share = right / images
    spread = Z95**2 / images
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / images + spread / (4 * images))
    low = 0.0 if right == 0 else middle - half  # exact there, rounding aside
    high = 1.0 if right == images else middle + half
    return low, high


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """Student's interval for the mean of `values` (N,), normal and independent; (nan, nan) of fewer than two."""
    if len(values) < 2:
        return math.nan, math.nan
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def roc_area(labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float, float]:
    """Area under the ROC curve with its interval: (area, low, high), all nan where one class is absent.

    Labels 0/1 (N,), probabilities of 1 (N,). The variance is DeLong's (1988), by the mid-ranks of Sun and Xu (2014).
    It is nothing where the classes are parted perfectly; the interval then is Newcombe's (2006, method 5).
    """
    positive, negative = probabilities[labels == 1], probabilities[labels == 0]
    m, n = len(positive), len(negative)
    if not m or not n:
        return math.nan, math.nan, math.nan
    together = rankdata(np.concatenate([positive, negative]))
    area = float((together[:m].sum() - m * (m + 1) / 2) / (m * n))
    if area in (0.0, 1.0) or min(m, n) < 2:
        return area, *_newcombe(area, m, n)
    above = (together[:m] - rankdata(positive)) / n  # share of negatives below each positive
    below = 1 - (together[m:] - rankdata(negative)) / m  # share of positives above each negative
    half = Z95 * math.sqrt(np.var(above, ddof=1) / m + np.var(below, ddof=1) / n)
    return area, max(0.0, area - half), min(1.0, area + half)


def _newcombe(area: float, m: int, n: int) -> tuple[float, float]:
    """The areas whose own standard error (Hanley and McNeil's) puts them 1.96 of it away from `area`."""
    size = (m + n) / 2 - 1

    def away(candidate: float) -> float:
        a = candidate
        variance = a * (1 - a) * (1 + size * ((1 - a) / (2 - a) + a / (1 + a))) / (m * n)
        return (candidate - area) ** 2 - Z95**2 * variance

    edge = 1e-12
    low = 0.0 if area <= edge else float(brentq(away, edge, area - edge)) if away(edge) > 0 else 0.0
    high = 1.0 if area >= 1 - edge else float(brentq(away, area + edge, 1 - edge)) if away(1 - edge) > 0 else 1.0
    return low, high


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
