"""Calibration: how far probabilities are from the shares that come true, and the temperature that corrects them."""

import math
from typing import TypedDict

import numpy as np
from scipy.optimize import minimize_scalar

_EPSILON = np.finfo(np.float64).eps
_TEMPERATURES = 0.05, 20.0
BINS = 10


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
