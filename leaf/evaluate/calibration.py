"""Calibration error with its null distribution, and temperature scaling (Guo 2017, arXiv 1706.04599)."""

import math
from typing import TypedDict

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import chi2

from leaf.evaluate.statistics import standard_error

EPSILON = float(np.finfo(np.float64).eps)
BINS = 10
_DRAWS = 2000
_TEMPERATURES = 0.05, 20.0


class Bin(TypedDict):
    """Images with confidence between `low` and `high`: their number, mean confidence and accuracy."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def calibration_bins(
    labels: np.ndarray, probabilities: np.ndarray, predicted: np.ndarray, bins: int = BINS
) -> list[Bin]:
    """Bin images by the probability of the most probable class and return the non-empty bins, of equal width in 1/C..1.

    Guo 2017 starts the bins at 0, but bins below 1/C are always empty. `labels` and `predicted` are int (N,),
    `probabilities` float64 (N, C).
    """
    confidence = probabilities.max(axis=1)
    correct = predicted == labels
    edges = np.linspace(1 / probabilities.shape[1], 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    return [
        Bin(
            low=float(edges[index]),
            high=float(edges[index + 1]),
            images=int(inside.sum()),
            confidence=float(confidence[inside].mean()),
            accuracy=float(correct[inside].mean()),
        )
        for index in range(bins)
        if (inside := place == index).any()
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Return the mean gap between confidence and accuracy, weighted by the number of images."""
    images = sum(row["images"] for row in bins)
    return sum(row["images"] * abs(row["confidence"] - row["accuracy"]) for row in bins) / images


def calibration_null(
    bins: list[Bin], correct: np.ndarray, confidence: np.ndarray, groups: np.ndarray
) -> tuple[float, float]:
    """Return the mean and the 95% quantile of a perfectly calibrated model's calibration error.

    This error is not 0, because the accuracy in each bin varies by chance. Outcomes are sampled from the bins'
    confidences. Images in one group are correlated, so the design effect of `groups` (N,) reduces the number of images
    in each bin. With few groups the design effect is often underestimated, so the quantile uses its upper 95% bound,
    capped at its value for identical outcomes within each group. `correct` is bool (N,), `confidence` float (N,).
    """
    sizes, means = (np.array([row[key] for row in bins], float) for key in ("images", "confidence"))
    independent = math.sqrt(float(np.mean(confidence * (1 - confidence))) / len(confidence))
    group_sizes = np.unique(groups, return_counts=True)[1]
    effect = bound = 1.0
    if independent > 0 and 1 < len(group_sizes) < len(groups):
        effect = max(1.0, standard_error(correct - confidence, groups) / independent)
        freedom, largest = (
            len(group_sizes) - 1,
            math.sqrt(float(np.mean(group_sizes[np.unique(groups, return_inverse=True)[1]]))),
        )
        bound = min(effect * math.sqrt(freedom / chi2.ppf(0.05, freedom)), max(largest, effect))

    def errors(design_effect: float) -> np.ndarray:
        effective = np.maximum(np.round(sizes / design_effect**2), 1)
        drawn = np.random.default_rng(0).binomial(effective.astype(int), np.clip(means, 0, 1), (_DRAWS, len(bins)))
        return (np.abs(drawn / effective - means) * sizes).sum(axis=1) / sizes.sum()

    return float(errors(effect).mean()), float(np.quantile(errors(bound), 0.95))


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the mean negative log-likelihood in nats; probabilities are clipped to one float step from 0 and 1.

    `labels` are int (N,), 0 … C − 1, `probabilities` float64 (N, C).
    """
    p = np.clip(probabilities, EPSILON, 1 - EPSILON)
    own = np.log(p[np.arange(len(labels)), labels])
    if p.shape[1] == 2:  # log1p keeps the first class exact if the second is close to 1
        own = np.where(labels == 1, own, np.log1p(-p[:, 1]))
    return float(-np.mean(own))


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return `probabilities` (N, C) after dividing their logits by `temperature`."""
    powers = np.clip(probabilities, EPSILON, 1) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def best_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the temperature between 0.05 and 20 with the lowest log loss; `probabilities` are at temperature 1."""
    low, high = (math.log(limit) for limit in _TEMPERATURES)
    found = minimize_scalar(
        lambda log: log_loss(labels, with_temperature(probabilities, math.exp(log))),
        bounds=(low, high),
        method="bounded",
    )
    return float(math.exp(found.x))
