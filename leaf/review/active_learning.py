"""Select the images to label next, and measure the accuracy that the labels add.

`benchmarks/active.py` compares this order with random sampling, entropy and k-center.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

CANDIDATES = 5  # candidates per selected image
SAME = 0.98  # cosine similarity above which images are nearly identical
_POOL = 4096  # number of most uncertain images to rank and cluster
_DIMENSIONS = 128


def reduce_features(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """Standardize features (N, D) and keep their first 128 principal components, scaled to a mean square of 1."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    sample = np.sort(np.random.default_rng(seed).permutation(len(features))[:_POOL])
    standard = StandardScaler().fit(features[sample]).transform(features)
    dimensions = min(_DIMENSIONS, len(sample), features.shape[1])
    reduced = PCA(dimensions, random_state=seed).fit(standard[sample]).transform(standard)
    return (reduced / max(float(np.sqrt(np.square(reduced[sample]).mean())), 1e-12)).astype(np.float32)


def fit_head(features: np.ndarray, labels: np.ndarray) -> "LogisticRegression":
    """Fit a logistic regression to `reduce_features` (N, D) and labels (N,) of at least two classes."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return LogisticRegression(C=0.1, max_iter=300).fit(features, labels)


def select(features: np.ndarray, count: int, probabilities: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
    """Return the positions of the `count` images to label next, the most useful first.

    With probabilities, the score is the margin uncertainty. Of near-identical images, only the best is a candidate. The
    images nearest to the centers of a k-means clustering of the best candidates, weighted by score, are selected.
    Without probabilities (cold start), all images are clustered, without weights.

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
        uncertainty = margin_uncertainty(probabilities)
        pool = np.argsort(-uncertainty, kind="stable")[: max(_POOL, count)]
        score = uncertainty[pool]
        best = _distinct(features[pool], np.argsort(-score, kind="stable"))[: count * CANDIDATES]
        pool, score = pool[best], score[best]
    if len(pool) <= count or count == 0:
        return pool[:count]
    candidates = features[pool]
    with threadpool_limits(1):
        clusters = KMeans(count, n_init=1, random_state=seed).fit(candidates, sample_weight=np.maximum(score, 1e-9))
    nearest = np.unique(pairwise_distances_argmin(clusters.cluster_centers_, candidates))
    if len(nearest) < count:  # two centers can share an image
        rest = np.setdiff1d(np.arange(len(pool)), nearest)
        nearest = np.concatenate([nearest, rest[: count - len(nearest)]])
    sizes = np.bincount(clusters.labels_, minlength=count)[clusters.labels_[nearest]]
    order = np.argsort(-score[nearest] if probabilities is not None else -sizes, kind="stable")
    return pool[nearest[order]]


def _distinct(features: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Move positions whose image is nearly identical to an earlier one in `order` to the end."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    repeated = np.zeros(len(unit), bool)
    for position in order:
        if not repeated[position]:
            repeated |= unit @ unit[position] > SAME
            repeated[position] = False
    return np.concatenate([order[~repeated[order]], order[repeated[order]]])


def margin_uncertainty(probabilities: np.ndarray) -> np.ndarray:
    """Return one minus the difference between the two largest probabilities, float (N,) in 0..1."""
    largest = np.sort(probabilities, axis=1)[:, -2:]
    return 1 - (largest[:, 1] - largest[:, 0])


def learning_curve(
    features: np.ndarray,
    labels: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    counts: Sequence[int],
) -> list[tuple[int, float, float, float]]:
    """Return (labels, accuracy, low, high) on validation after training on the first `count` images, for each count.

    Args:
        features: float (N, D), in labeling order.
        labels: int (N,).
        validation: features (V, D) and labels (V,).
        counts: numbers of images, each at most N. Counts whose images have a single class are skipped.

    Returns:
        Accuracies with 95% Wilson intervals.
    """
    from leaf.evaluate.statistics import wilson_interval

    curve = []
    for count in counts:
        if len(np.unique(labels[:count])) > 1 and len(validation[1]):
            right = int((fit_head(features[:count], labels[:count]).predict(validation[0]) == validation[1]).sum())
            low, high = wilson_interval(right, len(validation[1]))
            curve.append((count, right / len(validation[1]), low, high))
    return curve
