"""Select the images to label next, and measure how accuracy grows with the number of labels.

`benchmarks/active.py` compares this selection with random sampling, entropy and k-center.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

CANDIDATES = 5  # candidates per selected image
SAME = 0.98  # cosine similarity above which images are nearly identical
_POOL = 4096  # maximum number of images to choose from: the most uncertain ones, or a random sample
_DIMENSIONS = 128


def reduce_features(features: np.ndarray) -> np.ndarray:
    """Standardize features (N, D) and keep their first 128 principal components, scaled to a mean square of 1."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    sample = np.sort(np.random.default_rng(0).permutation(len(features))[:_POOL])
    standard = StandardScaler().fit(features[sample]).transform(features)
    dimensions = min(_DIMENSIONS, len(sample), features.shape[1])
    reduced = PCA(dimensions, random_state=0).fit(standard[sample]).transform(standard)
    return (reduced / max(float(np.sqrt(np.square(reduced[sample]).mean())), 1e-12)).astype(np.float32)


def fit_head(features: np.ndarray, labels: np.ndarray) -> "LogisticRegression":
    """Fit a logistic regression to features (N, D) from `reduce_features` and labels (N,) of at least two classes."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return LogisticRegression(C=0.1, max_iter=300).fit(features, labels)


def select(features: np.ndarray, count: int, probabilities: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Return the positions of the `count` images to label next, most useful first.

    With probabilities, the score of an image is its margin uncertainty, and only the best of several near-identical
    images is a candidate. The best candidates are clustered by k-means, weighted by score, and the image nearest to
    each center is selected. Without probabilities (cold start), a random sample is clustered without weights.

    Args:
        features: float (N, D), from `reduce_features`.
        count: number of images, at most N.
        probabilities: float (N, C) from a model trained on the labeled images, or None before the first labels.
        seed: k-means seed.

    References:
        Zhdanov, "Diverse mini-batch Active Learning", 2019. https://arxiv.org/abs/1901.05954
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import pairwise_distances_argmin
    from threadpoolctl import threadpool_limits

    count = min(count, len(features))
    if probabilities is None:
        pool = np.sort(np.random.default_rng(seed).permutation(len(features))[: max(_POOL, count)])
        score = np.ones(len(pool))
    else:
        second, first = np.sort(probabilities, axis=1)[:, -2:].T
        uncertainty = 1 - (first - second)
        pool = np.argsort(-uncertainty, kind="stable")[: max(_POOL, count)]
        pool = pool[_distinct_first(features[pool])][: count * CANDIDATES]
        score = uncertainty[pool]
    if len(pool) <= count:
        return pool
    candidates = features[pool]
    with threadpool_limits(1):
        clusters = KMeans(count, n_init=1, random_state=seed).fit(candidates, sample_weight=np.maximum(score, 1e-9))
    nearest = np.unique(pairwise_distances_argmin(clusters.cluster_centers_, candidates))
    if len(nearest) < count:  # two centers can have the same nearest image
        rest = np.setdiff1d(np.arange(len(pool)), nearest)
        nearest = np.concatenate([nearest, rest[: count - len(nearest)]])
    sizes = np.bincount(clusters.labels_, minlength=count)[clusters.labels_[nearest]]
    return pool[nearest[np.argsort(-sizes if probabilities is None else -score[nearest], kind="stable")]]


def _distinct_first(features: np.ndarray) -> np.ndarray:
    """Return the positions of all rows; rows that are nearly identical to an earlier one come last."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    repeated = np.zeros(len(unit), bool)
    for row in range(len(unit)):
        if not repeated[row]:
            repeated[row + 1 :] |= unit[row + 1 :] @ unit[row] > SAME
    return np.argsort(repeated, kind="stable")


def learning_curve(
    features: np.ndarray, labels: np.ndarray, validation: tuple[np.ndarray, np.ndarray], counts: Sequence[int]
) -> list[tuple[int, float, float, float]]:
    """Return `(count, accuracy, low, high)` on validation after training on the first `count` images, for each count.

    `features` (N, D) and `labels` int (N,) are in labeling order; `validation` is features (V, D) and labels (V,).
    `low` and `high` are the 95% Wilson interval. Counts whose images have a single class are skipped.
    """
    from leaf.evaluate.statistics import wilson_interval

    curve = []
    for count in counts:
        if len(np.unique(labels[:count])) > 1 and len(validation[1]):
            correct = int((fit_head(features[:count], labels[:count]).predict(validation[0]) == validation[1]).sum())
            curve.append((count, correct / len(validation[1]), *wilson_interval(correct, len(validation[1]))))
    return curve
