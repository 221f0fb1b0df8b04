"""Measure domain shift: the accuracy on a site or crop left out of training, and the detection of a left-out class.

Accuracy is measured with linear heads on fixed features; fitting one takes about a second.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from leaf.audit.shortcuts import Score, balanced_accuracy, difference, score
from leaf.evaluate.baselines import HELD, LEARNERS, held_out
from leaf.evaluate.linear_head import linear_head
from leaf.evaluate.out_of_distribution import fit_gaussian
from leaf.evaluate.statistics import auc_interval

FEW = 10  # minimum number of test images
MOST = 12  # maximum number of column values or classes to leave out
FALSE_ALARMS = 0.01
DETECTOR_FOLDS = 3


@dataclass(frozen=True)
class Transport:
    """Accuracy on the images with one value of a column, trained with (`inside`) and without (`outside`) that value.

    `drop` is inside − outside on the images that both models were tested on. `images` is the number of test images,
    and `majority` is the share of their largest class.
    """

    inside: Score
    outside: Score
    drop: Score
    images: int
    majority: float
    balanced_inside: float
    balanced_outside: float


def leave_out(
    labels: np.ndarray, groups: np.ndarray, values: Sequence[str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield at most `MOST` values of a column, most frequent first, each with a training and a test mask, bool (N,).

    Groups that contain the value are excluded from training, and only images whose class occurs in training are tested.
    The value "" and values with fewer than FEW test images or only one test class are skipped. `labels` is int (N,);
    `groups` and `values`, the column, are (N,).
    """
    given = np.array([str(value) for value in values])
    names, counts = np.unique(given[given != ""], return_counts=True)
    tested = 0
    for name in names[np.argsort(-counts, kind="stable")].tolist():
        train = ~np.isin(groups, groups[given == name])
        test = (given == name) & np.isin(labels, labels[train])
        if tested < MOST and test.sum() >= FEW and len(np.unique(labels[test])) > 1:
            tested += 1
            yield name, train, test


def transport(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, values: Sequence[str]
) -> dict[str, Transport]:
    """Score a linear head on each value of a column after training without that value; see `leave_out`.

    `features` is float (N, D).
    """
    inside = held_out("held", features, labels, groups).argmax(axis=1) == labels
    found: dict[str, Transport] = {}
    for name, train, test in leave_out(labels, groups, values):
        shares = LEARNERS["held"](features[train], labels[train]).predict_proba(features[test])
        outside = np.unique(labels[train])[shares.argmax(axis=1)] == labels[test]
        found[name] = compare_accuracy(inside[test], outside, labels[test], groups[test])
    return found


def compare_accuracy(inside: np.ndarray, outside: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Transport:
    """Compare the accuracy of two models on the same images.

    `inside` and `outside` (N,) are 1 for a correct prediction and 0 otherwise; `inside` is nan for images not tested.
    """
    both = ~np.isnan(inside.astype(float))
    return Transport(
        score(inside[both], groups[both]),
        score(outside, groups),
        difference(inside[both], outside[both], groups[both]),
        len(outside),
        float(np.unique(labels, return_counts=True)[1].max() / len(labels)),
        balanced_accuracy(inside[both], labels[both]),
        balanced_accuracy(outside, labels),
    )


def cluster_backgrounds(frames: np.ndarray) -> list[str]:
    """Cluster images by background and return cluster names (N,); `background 1` is the largest.

    Run k-means on the features of the frames, float (N, D), with the number of clusters, two to five, that has the
    highest silhouette score.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    tried = [KMeans(number, n_init=4, random_state=0).fit_predict(frames) for number in range(2, 6)]
    clusters = max(tried, key=lambda each: silhouette_score(frames, each, sample_size=2000, random_state=0))
    rank = np.argsort(np.argsort(-np.bincount(clusters), kind="stable"))
    return [f"background {rank[place] + 1}" for place in clusters]


@dataclass(frozen=True)
class NewClass:
    """Detection of an unknown class: the share of its images flagged at a 1% false-alarm rate, and the AUROC."""

    caught: Score
    auroc: Score


def new_classes(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, names: Sequence[str]
) -> dict[str, dict[str, NewClass]]:
    """Leave out each of the `MOST` largest classes in turn, and score the detectors on it with `score_detectors`."""
    counts = np.bincount(labels, minlength=len(names))
    found: dict[str, dict[str, NewClass]] = {}
    for label in np.argsort(-counts, kind="stable")[:MOST].tolist():
        new, known = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        if counts[label] >= FEW and len(known) >= 2 * DETECTOR_FOLDS:
            of = features[known], labels[known], groups[known]
            found[names[label]] = score_detectors(*of, features[new], groups[new])
    return found


def score_detectors(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, new: np.ndarray, new_groups: np.ndarray
) -> dict[str, NewClass]:
    """Measure how well each detector separates unknown images, `new` (M, D), from known ones, `features` (N, D).

    Known images are scored in grouped cross-validation. The score of an unknown image is its mean over the folds whose
    training images exclude its group.
    """
    from sklearn.model_selection import StratifiedGroupKFold
    from threadpoolctl import threadpool_limits

    several = len(np.unique(labels)) > 1  # the energy score needs two classes
    flags = [flag for flag in DETECTORS if several or flag != "energy"]
    inside = {flag: np.empty(len(features)) for flag in flags}
    outside = {flag: np.zeros(len(new)) for flag in flags}
    times = np.zeros(len(new))
    parts = StratifiedGroupKFold(DETECTOR_FOLDS, shuffle=True, random_state=0)
    for train, test in parts.split(features, labels, groups):
        apart = ~np.isin(new_groups, groups[train])
        times += apart
        queries = np.concatenate([features[test], new[apart]])
        for flag in flags:
            with threadpool_limits(1):  # threads slow down small matrix products; see `linear_head`
                scores = DETECTORS[flag](features[train], labels[train], queries)
            inside[flag][test] = scores[: len(test)]
            outside[flag][apart] += scores[len(test) :]
    is_new, every = np.repeat([0, 1], [len(features), len(new)]), np.concatenate([groups, new_groups])
    found = {}
    for flag in flags:
        scores = outside[flag] / times
        caught = score(scores > np.quantile(inside[flag], 1 - FALSE_ALARMS), new_groups)
        found[flag] = NewClass(caught, Score(*auc_interval(is_new, np.concatenate([inside[flag], scores]), every)))
    return found


def _mahalanobis(train: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """Return the Mahalanobis distances that the pipeline's out-of-distribution detector uses."""
    return fit_gaussian(train, queries[:1], 0.0).distance(queries)


def _neighbours(train: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """Return the distance to the fifth nearest training image, on standardized, normalized features (Sun 2022)."""
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler, normalize

    scaler = StandardScaler().fit(train)
    nearest = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(normalize(scaler.transform(train)))
    return nearest.kneighbors(normalize(scaler.transform(queries)))[0][:, -1]


def _energy(train: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return the energy score, the negative log-sum-exp of the linear head's logits (Liu 2020)."""
    from scipy.special import logsumexp

    logits = linear_head(train, labels, strength=HELD).decision_function(queries)
    logits = logits if logits.ndim == 2 else np.stack([-logits / 2, logits / 2], axis=1)
    return -logsumexp(logits, axis=1)


# Each maps training features (M, D), labels (M,) and query features (N, D) to scores (N,), higher if unknown.
DETECTORS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "mahalanobis": _mahalanobis,
    "neighbours": _neighbours,
    "energy": _energy,
}
