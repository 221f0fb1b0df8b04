"""Selective prediction: leave uncertain images undecided, so that few are misclassified."""

import math
from typing import Any

import numpy as np


def confidence(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Return the confidence of each prediction, float64 (N,), from `probabilities`, float64 (N, C).

    With more than two classes, this is the probability of the predicted class. With two classes, the odds are first
    divided by the odds of `threshold`, so that the confidence is lowest, 0.5, at the threshold.
    """
    if probabilities.shape[1] > 2:
        return probabilities.max(axis=1)
    weighted = probabilities * [threshold, 1 - threshold]
    return weighted.max(axis=1) / np.maximum(weighted.sum(axis=1), np.finfo(np.float64).tiny)


def min_confidence(correct: np.ndarray, confidence: np.ndarray, error_rate: float) -> float:
    """Return the confidence limit below which images are left undecided; 0 if all images are decided.

    Conformal risk control (Angelopoulos 2022, arXiv 2208.02814) guarantees that the expected share of misclassified
    images is at most `error_rate` for new images from the same distribution. The limit is the midpoint of two
    confidences, so rounding on another machine does not change a decision. If N is below 1 / `error_rate` − 1, there
    are too few images for the guarantee, and the limit is 0.

    Args:
        correct: whether each validation image is classified correctly, bool (N,).
        confidence: float64 (N,).
        error_rate: maximum share of misclassified images; 0 to decide all.
    """
    allowed = math.floor(error_rate * (len(correct) + 1) + 1e-9) - 1
    wrong = np.sort(confidence[~correct])[::-1]
    if not 0 <= allowed < len(wrong):
        return 0.0
    higher = confidence[confidence > wrong[allowed]]
    return float((wrong[allowed] + min(higher, default=1.0)) / 2)


def selective_metrics(correct: np.ndarray, decided: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """Return metrics of selective prediction. `correct` and `decided` are bool (N,).

    `decided` is the share of decided images, `wrong` the share of all images that are misclassified, and
    `decided_accuracy` the accuracy on decided images (nan if there are none). The last two have 95% intervals.
    """
    from leaf.evaluate.statistics import proportion_interval  # slow to import, and prediction does not use it

    wrong, right = decided & ~correct, correct[decided]
    found = {"decided": float(decided.mean()), "wrong": float(wrong.mean())}
    found["wrong_low"], found["wrong_high"] = proportion_interval(wrong, groups)
    found["decided_accuracy"] = float(right.mean()) if len(right) else math.nan
    limits = proportion_interval(right, groups[decided])
    found["decided_accuracy_low"], found["decided_accuracy_high"] = limits
    return found
