"""95 % intervals for a share, for a mean and for the area under the ROC curve."""

import math

import numpy as np
from scipy.stats import rankdata, t

Z95 = 1.959963984540054  # the normal distribution's 97.5 % point


def wilson(right: int, images: int) -> tuple[float, float]:
    """Wilson's score interval (1927) for `right` of `images`; (nan, nan) of none.

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
    from scipy.optimize import brentq

    size = (m + n) / 2 - 1

    def away(candidate: float) -> float:
        a = candidate
        variance = a * (1 - a) * (1 + size * ((1 - a) / (2 - a) + a / (1 + a))) / (m * n)
        return (candidate - area) ** 2 - Z95**2 * variance

    edge = 1e-12
    low = 0.0 if area <= edge else float(brentq(away, edge, area - edge)) if away(edge) > 0 else 0.0
    high = 1.0 if area >= 1 - edge else float(brentq(away, area + edge, 1 - edge)) if away(1 - edge) > 0 else 1.0
    return low, high
