"""What is chosen on the validation split: the threshold and the temperature."""

import math

import numpy as np

from leaf.scoring.metrics import log_loss, roc_curve

_EPSILON = np.finfo(np.float64).eps
_TEMPERATURES = 0.05, 20.0


def best_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold of the best balanced accuracy: labels 0/1 (N,), probabilities of 1 (N,); 0.5 with one class alone.

    It lies half-way between the two probabilities that it parts, so that a rounding error on another machine moves no
    image across. Of several as good, the one nearest to 0.5.
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


def with_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities of 1 as they would be with the logits divided by `temperature`."""
    p = np.clip(probabilities, _EPSILON, 1 - _EPSILON)
    return 1 / (1 + np.exp(-(np.log(p) - np.log1p(-p)) / temperature))


def best_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature, 0.05 to 20, of the lowest log loss (Guo 2017); `probabilities` are those at temperature 1."""
    from scipy.optimize import minimize_scalar

    low, high = (math.log(limit) for limit in _TEMPERATURES)
    found = minimize_scalar(
        lambda log: log_loss(labels, with_temperature(probabilities, math.exp(log))),
        bounds=(low, high),
        method="bounded",
    )
    return float(math.exp(found.x))
