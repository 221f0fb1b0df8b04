"""Choose which unlabelled images to label next."""

import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin
from sklearn.neighbors import NearestNeighbors

CANDIDATES = 5  # candidates per image chosen, the most useful ones
NEIGHBORS = 10  # for the density
_MOST_CLUSTERED = 4096  # images in one k-means run


def select(
    features: np.ndarray, count: int, probabilities: np.ndarray | None = None, seed: int = 0, density_power: float = 1.0
) -> np.ndarray:
    """Return the positions of the `count` images to label next, the most useful first.

    With probabilities, the score is margin uncertainty times density, and a k-means clustering of the best candidates,
    weighted by score, spreads the choice. Without, it is the cold start: the images nearest to the centers of a k-means
    clustering of all images.

    Args:
        features: float (N, D), standardized.
        count: number of images, at most N.
        probabilities: float (N, C) of a model trained on the labelled images, or None before the first label.
        seed: seed of k-means.
        density_power: exponent of the density; 0 ignores it.

    References:
        Zhdanov, "Diverse mini-batch Active Learning", 2019. https://arxiv.org/abs/1901.05954
        Settles and Craven, "An Analysis of Active Learning Strategies for Sequence Labeling", EMNLP 2008.
    """
    count = min(count, len(features))
    score = np.ones(len(features))
    if probabilities is not None:
        score = margin_uncertainty(probabilities) * density(features) ** density_power
        candidates = np.argsort(-score, kind="stable")[: max(count * CANDIDATES, count)]
    else:
        random = np.random.default_rng(seed)
        candidates = np.sort(random.permutation(len(features))[: max(_MOST_CLUSTERED, count)])
    if count == 0 or len(candidates) == count:
        return candidates[np.argsort(-score[candidates], kind="stable")]
    weights = np.maximum(score[candidates], 1e-9)
    clusters = KMeans(count, n_init=1, random_state=seed).fit(features[candidates], sample_weight=weights)
    nearest = pairwise_distances_argmin(clusters.cluster_centers_, features[candidates])
    chosen = candidates[np.unique(nearest)]
    if len(chosen) < count:  # two centers share an image
        rest = candidates[~np.isin(candidates, chosen)]
        chosen = np.concatenate([chosen, rest[: count - len(chosen)]])
    sizes = np.bincount(clusters.labels_, minlength=count)[clusters.predict(features[chosen])]
    order = -score[chosen] if probabilities is not None else -sizes.astype(float)
    return chosen[np.argsort(order, kind="stable")]


def margin_uncertainty(probabilities: np.ndarray) -> np.ndarray:
    """Return one minus the difference between the two largest probabilities, float (N,) in 0..1."""
    largest = np.sort(probabilities, axis=1)[:, -2:]
    return 1 - (largest[:, 1] - largest[:, 0])


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the Shannon entropy of each row, float (N,), in nats."""
    clipped = np.clip(probabilities, 1e-12, 1)
    return -(clipped * np.log(clipped)).sum(axis=1)


def density(features: np.ndarray) -> np.ndarray:
    """Return the mean cosine similarity to the nearest neighbors, float (N,) in 0..1."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    neighbors = min(NEIGHBORS + 1, len(unit))
    distances, _ = NearestNeighbors(n_neighbors=neighbors, algorithm="brute").fit(unit).kneighbors(unit)
    similarity = 1 - np.square(distances[:, 1:]) / 2 if neighbors > 1 else np.ones((len(unit), 1))
    return np.clip(similarity.mean(axis=1), 0, 1)


def k_center(features: np.ndarray, count: int, labelled: np.ndarray) -> np.ndarray:
    """Return `count` positions by greedy k-center: each is the farthest from all labelled and chosen images.

    Args:
        features: float (N, D).
        count: number of images.
        labelled: positions that are labelled already, int (L,).

    References:
        Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018.
    """
    gaps = np.full(len(features), np.inf)
    chosen: list[int] = []
    centers = labelled.tolist()
    if not centers:
        first = int(np.square(features - features.mean(axis=0)).sum(axis=1).argmin())
        chosen, centers = [first], [first]
    for center in centers:
        gaps = np.minimum(gaps, np.square(features - features[center]).sum(axis=1))
    while len(chosen) < count:
        chosen.append(int(gaps.argmax()))
        gaps = np.minimum(gaps, np.square(features - features[chosen[-1]]).sum(axis=1))
    return np.array(chosen[:count], np.int64)
