"""Two-sided 95% confidence intervals and tests that account for groups, because images of one plant are correlated.

`groups` (N,) contains the group of each image, as sortable values.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, rankdata, t, ttest_ind_from_stats

LEVEL = 0.05
Z95 = float(norm.ppf(1 - LEVEL / 2))
_REPLICATES = 10_000
_CHUNK = 100  # bootstrap replicates per block; limits memory to 100 × groups × seeds × 8 bytes
_EXACT_GROUPS = 13  # up to this number of groups, all sign flips are enumerated


def wilson_interval(successes: float, count: float, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's score interval (1927); `successes` may be fractional. Both bounds are nan if `count` is 0."""
    if count == 0:
        return math.nan, math.nan
    share = successes / count
    spread = z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    low = 0.0 if successes == 0 else middle - half  # exact at 0 and 1 despite rounding
    high = 1.0 if successes == count else middle + half
    return low, high


def proportion_interval(correct: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return a confidence interval for the mean of `correct`, 0..1, of shape (N,) or, for S seeds, (S, N).

    This is Wilson's interval for the effective sample size of Rao and Scott (1992), with Student's t in place of the
    normal quantile (Korn and Graubard 1998). The degrees of freedom are based on the effective number of groups,
    (Σ size)² / Σ size². With several seeds, the variance of their means is added, with Satterthwaite's degrees of
    freedom.
    """
    correct = np.atleast_2d(correct)
    seeds, images = correct.shape
    if not images:
        return math.nan, math.nan
    sizes = np.unique(groups, return_counts=True)[1]
    share = float(np.mean(correct))
    if len(sizes) == images and seeds == 1:
        return wilson_interval(share * images, images)
    effective_groups = images**2 / float(np.sum(sizes.astype(float) ** 2))
    variances = [(standard_error(correct.mean(axis=0), groups) ** 2, effective_groups - 1)]
    if seeds > 1:
        variances.append((float(np.var(correct.mean(axis=1), ddof=1)) / seeds, seeds - 1))
    error = math.sqrt(sum(variance for variance, _ in variances))
    z = _t_quantile(satterthwaite(variances) if error else effective_groups - 1)
    # Without variation, the correlation within groups cannot be estimated, so count groups instead of images.
    size = min(images, share * (1 - share) / error**2) if error else effective_groups
    size = max(size, min(effective_groups, images)) if seeds == 1 else size
    return wilson_interval(share * size, size, z)


def standard_error(values: np.ndarray, groups: np.ndarray) -> float:
    """Return the cluster-robust jackknife standard error (CR3) of the mean of `values` (N,); 0 for a single group."""
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return 0.0
    residuals = np.bincount(place, weights=values - np.mean(values))
    return float(np.sqrt(np.sum((residuals / (len(values) - sizes)) ** 2)))


def difference_interval(first: np.ndarray, second: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Return a t-interval over groups for the mean of the paired differences `first` − `second`, (N,)."""
    difference = first.astype(float) - second
    half = _t_quantile(len(np.unique(groups)) - 1) * standard_error(difference, groups)
    return float(difference.mean() - half), float(difference.mean() + half)


def mean_interval(values: np.ndarray) -> tuple[float, float]:
    """Return a t-interval for the mean of independent `values` (N,); nan for fewer than two values."""
    if len(values) < 2:
        return math.nan, math.nan
    half = _t_quantile(len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def auc_interval(
    labels: np.ndarray, scores: np.ndarray, groups: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Return the area under the ROC curve and its interval, (area, low, high); all are nan if a class is absent.

    `labels` are 0 or 1, int (N,), and `scores`, float (N,), are higher for class 1. By default, each image is its own
    group. The variance is DeLong's (1988), from placement values summed by group (Obuchowski 1997). The interval uses
    the logit scale and Student's t. Perfectly separated classes have no variance, so their interval is Newcombe's
    (2006, method 5) for the number of groups.
    """
    positive, negative = labels == 1, labels != 1
    m, n = int(positive.sum()), int(negative.sum())
    if not m or not n:
        return math.nan, math.nan, math.nan
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    ranks = rankdata(np.concatenate([scores[positive], scores[negative]]))
    above = (ranks[:m] - rankdata(scores[positive])) / n  # share of negatives below each positive
    below = 1 - (ranks[m:] - rankdata(scores[negative])) / m  # share of positives above each negative
    area = float(above.mean())
    counts = [len(np.unique(groups[which])) for which in (positive, negative)]
    place = np.unique(groups, return_inverse=True)[1]
    sums = np.zeros(place.max() + 1)
    for which, values, count in ((positive, above, m), (negative, below, n)):
        sizes = np.bincount(place[which], minlength=len(sums))
        off = np.bincount(place[which], weights=values - area, minlength=len(sums))
        sums += off / np.maximum(count - sizes, 1)  # jackknife, as in standard_error
    error = math.sqrt(float(np.sum(sums**2)))
    if area in (0.0, 1.0) or min(counts) < 2 or error == 0:
        return area, *_newcombe_interval(area, *counts)
    half = _t_quantile(min(counts) - 1) * error / (area * (1 - area))
    middle = math.log(area / (1 - area))
    low, high = (1 / (1 + math.exp(-edge)) for edge in (middle - half, middle + half))
    return area, low, high


def _newcombe_interval(area: float, m: int, n: int) -> tuple[float, float]:
    """Return the two areas whose distance from `area` is 1.96 times their own Hanley–McNeil standard error."""
    size = (m + n) / 2 - 1

    def distance(candidate: float) -> float:
        a = candidate
        variance = a * (1 - a) * (1 + size * ((1 - a) / (2 - a) + a / (1 + a))) / (m * n)
        return (candidate - area) ** 2 - Z95**2 * variance

    edge = 1e-12
    low, high = 0.0, 1.0
    if area > edge and distance(edge) > 0:
        low = float(brentq(distance, edge, area - edge))
    if area < 1 - edge and distance(1 - edge) > 0:
        high = float(brentq(distance, area + edge, 1 - edge))
    return low, high


def satterthwaite(variances: Sequence[tuple[float, float]]) -> float:
    """Return the degrees of freedom of a sum of independent variances, each given as (variance, degrees of freedom)."""
    total = sum(variance for variance, _ in variances)
    squares = sum(variance**2 / max(freedom, 1) for variance, freedom in variances)
    return total**2 / squares if squares else 1.0


def _t_quantile(freedom: float) -> float:
    return float(t.ppf(1 - LEVEL / 2, max(freedom, 1)))


def sign_flip_test(differences: np.ndarray, groups: np.ndarray) -> float:
    """Test whether `differences` (N,) are symmetric around 0, and return the two-sided p-value.

    The signs of all differences in a group are flipped together; the statistic is the absolute sum. For up to 13 groups
    with a nonzero sum, all sign flips are enumerated; for more groups, 10,000 are sampled. For independent images with
    differences of ±1, this is equivalent to McNemar's exact test (1947), apart from sampling.
    """
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], weights=differences)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    observed = abs(sums.sum()) - 1e-9
    if len(sums) <= _EXACT_GROUPS:
        bits = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float(np.mean(np.abs((2 * bits - 1) @ sums) >= observed))
    random = np.random.default_rng(0)
    extreme = 0
    for start in range(0, _REPLICATES, 1000):
        signs = 2.0 * random.integers(0, 2, (min(1000, _REPLICATES - start), len(sums))) - 1
        extreme += int((np.abs(signs @ sums) >= observed).sum())
    return (extreme + 1) / (_REPLICATES + 1)


def welch_test(first: np.ndarray, second: np.ndarray) -> float:
    """Return the two-sided p-value of Welch's t-test (1947) for equal means; nan for fewer than two values."""
    if min(len(first), len(second)) < 2:
        return math.nan
    if not np.ptp(first) and not np.ptp(second):  # neither sample has any variance
        return float(first[0] == second[0])
    stats = [f(each) for each in (first, second) for f in (np.mean, lambda values: np.std(values, ddof=1), len)]
    return float(ttest_ind_from_stats(*stats, equal_var=False).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for multiple testing (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values, float)[order] * factors), 1)
    return adjusted.tolist()


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """Return the significance level of each interval, so that the intervals agree with Holm's tests.

    The level is LEVEL / (m − rank) for m p-values, ranked in ascending order from 0.
    """
    ranks = np.argsort(np.argsort(p_values, kind="stable"), kind="stable")
    return (LEVEL / (len(p_values) - ranks)).tolist()


def grouped_bootstrap(runs: Sequence[np.ndarray], groups: np.ndarray) -> list[np.ndarray]:
    """Resample groups and seeds, identically for all runs; return the accuracies of each run, float64 (10000,).

    Each run is float (S, N) for S seeds or repeats and N images: 1 (correct), 0 (wrong) or nan (not tested).
    """
    random = np.random.default_rng(0)
    place = np.unique(groups, return_inverse=True)[1]

    def by_group(values: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(place, weights=row) for row in values], axis=1)

    sums = [by_group(np.nan_to_num(run)) for run in runs]  # (groups, seeds)
    sizes = [by_group(~np.isnan(run)) for run in runs]
    shares: list[list[np.ndarray]] = [[] for _ in runs]
    for start in range(0, _REPLICATES, _CHUNK):
        rows, count = min(_CHUNK, _REPLICATES - start), len(sums[0])
        times = random.multinomial(count, np.full(count, 1 / count), rows).astype(float)
        chosen = random.integers(sums[0].shape[1], size=(rows, sums[0].shape[1]))
        for part, tested, kept in zip(sums, sizes, shares, strict=True):
            with np.errstate(invalid="ignore"):
                of_seed = (times @ part) / (times @ tested)
            kept.append(np.take_along_axis(of_seed, chosen, axis=1).mean(axis=1))
    return [np.concatenate(each) for each in shares]
