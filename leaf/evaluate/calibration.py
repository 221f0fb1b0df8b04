"""Log loss, calibration error and temperature scaling of predicted probabilities.

`labels` are int (N,), 0 … C − 1; `probabilities` are float64 (N, C).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import chi2

from leaf.evaluate.statistics import standard_error

EPSILON = float(np.finfo(np.float64).eps)
BINS = 10
_DRAWS = 2000
_TEMPERATURES = 0.05, 20.0


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean negative log-likelihood in nats, with probabilities clipped to `EPSILON` … 1 − `EPSILON`."""
    p = np.clip(probabilities, EPSILON, 1 - EPSILON)
    own = np.log(p[np.arange(len(labels)), labels])
    if p.shape[1] == 2:  # more exact if the second class has a probability close to 0
        own = np.where(labels == 1, own, np.log1p(-p[:, 1]))
    return float(-np.mean(own))


def calibration_bins(labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray) -> list[dict[str, float]]:
    """Bin images by their highest probability; return the size, mean confidence and accuracy of each non-empty bin.

    The bins have equal width and cover 1/C to 1. Those of Guo (2017) start at 0, but bins below 1/C are always empty.
    """
    confidence, correct = probabilities.max(axis=1), predicted == labels
    edges = np.linspace(1 / probabilities.shape[1], 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, BINS - 1)
    return [
        {
            "low": float(edges[index]),
            "high": float(edges[index + 1]),
            "images": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(correct[inside].mean()),
        }
        for index in range(BINS)
        if (inside := place == index).any()
    ]


def expected_calibration_error(bins: Sequence[Mapping[str, float]]) -> float:
    """Return the mean absolute difference between confidence and accuracy over bins, weighted by number of images."""
    images = sum(row["images"] for row in bins)
    return sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / images


def calibration_null(
    bins: Sequence[Mapping[str, float]], correct: np.ndarray, confidence: np.ndarray, groups: np.ndarray
) -> tuple[float, float]:
    """Return the mean and 95% quantile of the calibration error of a perfectly calibrated model.

    This error is above 0 because the number of images is finite. Outcomes are sampled from the mean confidence of each
    bin. The number of images in a bin is reduced by the design effect of `groups` (N,). With few groups, the design
    effect is often underestimated, so the quantile uses its upper 95% bound, capped at the design effect for identical
    outcomes within each group. `correct` is bool (N,), and `confidence` is float (N,).
    """
    sizes, means = (np.array([row[key] for row in bins], float) for key in ("images", "confidence"))
    independent = math.sqrt(float(np.mean(confidence * (1 - confidence))) / len(confidence))
    _, place, group_sizes = np.unique(groups, return_inverse=True, return_counts=True)
    effect = bound = 1.0
    if independent > 0 and 1 < len(group_sizes) < len(groups):
        effect = max(1.0, standard_error(correct - confidence, groups) / independent)
        freedom, largest = len(group_sizes) - 1, math.sqrt(float(np.mean(group_sizes[place])))
        bound = min(effect * math.sqrt(freedom / chi2.ppf(0.05, freedom)), max(largest, effect))

    def errors(design_effect: float) -> np.ndarray:
        effective = np.maximum(np.round(sizes / design_effect**2), 1)
        drawn = np.random.default_rng(0).binomial(effective.astype(int), np.clip(means, 0, 1), (_DRAWS, len(bins)))
        return (np.abs(drawn / effective - means) * sizes).sum(axis=1) / sizes.sum()

    return float(errors(effect).mean()), float(np.quantile(errors(bound), 0.95))


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities (N, C) after dividing their logits by `temperature`."""
    powers = np.clip(probabilities, EPSILON, 1) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def best_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature between 0.05 and 20 that minimizes the log loss (Guo 2017, arXiv 1706.04599)."""

    def loss(log: float) -> float:
        return log_loss(labels, with_temperature(probabilities, math.exp(log)))

    low, high = (math.log(limit) for limit in _TEMPERATURES)
    return float(math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))
