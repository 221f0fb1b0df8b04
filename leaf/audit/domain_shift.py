"""Transport: does it hold where it has not been: at another site, on another crop, for a kind that it never saw?

A linear head on features that do not learn is fitted anew for each question, so that one takes about a second.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from leaf.audit.shortcuts import Score, difference, score
from leaf.evaluate.baselines import HELD, LEARNERS, held_out
from leaf.evaluate.linear_head import linear_head
from leaf.evaluate.out_of_distribution import fit_gaussian
from leaf.evaluate.statistics import auc_interval

FEW = 10  # images, below which nothing is asked
MOST = 12  # values of a column, and new kinds
FALSE_ALARMS = 0.01
FLAG_FOLDS = 3


@dataclass(frozen=True)
class Transport:
    """Accuracy on the images of one value: learned with others of it, and without any of it.

    `drop` = inside − outside, of the images judged both ways, and its interval from them.
    """

    inside: Score
    outside: Score
    drop: Score
    images: int


def left_out(
    labels: np.ndarray, groups: np.ndarray, values: Sequence[str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each value of a column in turn, the commonest `MOST` of those with two classes known elsewhere.

    `labels` int (N,), `groups` (N,), `values` (N,), "" where nothing is said: such an image is learned from and never
    left out. Gives the value, which images to learn from and which to judge, bool (N,) each. A group that lies in
    several values is not learned from when one of them is out. Only images whose class stands elsewhere are judged.
    """
    said = np.array([str(value) for value in values])
    names, counts = np.unique(said[said != ""], return_counts=True)
    found = 0
    for name in names[np.argsort(-counts, kind="stable")].tolist():
        out = said == name
        learn = ~np.isin(groups, groups[out])
        judged = out & np.isin(labels, labels[learn])
        if judged.sum() >= FEW and len(np.unique(labels[judged])) > 1 and found < MOST:
            found += 1
            yield name, learn, judged


def transport(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, values: Sequence[str]
) -> dict[str, Transport]:
    """Judge each value of a column by a linear head that learned from none of it, see `left_out`.

    `features` float (N, D).
    """
    inside = held_out("held", features, labels, groups).argmax(axis=1) == labels
    found: dict[str, Transport] = {}
    for name, learn, judged in left_out(labels, groups, values):
        classes = np.unique(labels[learn])
        shares = LEARNERS["held"](features[learn], labels[learn], features[judged])
        outside = classes[shares.argmax(axis=1)] == labels[judged]
        found[name] = compared(inside[judged], outside, groups[judged])
    return found


def compared(inside: np.ndarray, outside: np.ndarray, groups: np.ndarray) -> Transport:
    """Which images (N,) were right, judged both ways; `inside` nan where one was learned from."""
    both = ~np.isnan(inside.astype(float))
    return Transport(
        score(inside[both], groups[both]),
        score(outside, groups),
        difference(inside[both], outside[both], groups[both]),
        len(outside),
    )


def backgrounds(frames: np.ndarray, seed: int = 0) -> list[str]:
    """A guess at which images were taken before one background, `background 1` the commonest: (N,).

    `frames` float (N, D) describes the frames; k-means in as many of two to five clusters as part best (silhouette).
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    tried = [KMeans(number, n_init=4, random_state=seed).fit_predict(frames) for number in range(2, 6)]
    parted = max(tried, key=lambda each: silhouette_score(frames, each, sample_size=2000, random_state=seed))
    rank = np.argsort(np.argsort(-np.bincount(parted), kind="stable"))
    return [f"background {rank[place] + 1}" for place in parted]


@dataclass(frozen=True)
class NewClass:
    """Of a class that was never learned, the share that is flagged at 1 % false alarms, and the area under the ROC."""

    caught: Score
    auroc: Score


def new_classes(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, names: Sequence[str], seed: int = 0
) -> dict[str, dict[str, NewClass]]:
    """Leave each class out in turn, the `MOST` commonest, and ask `FLAGS` about its images: by class, and by flag.

    Arguments as of `transport`, see `noticed`.
    """
    counts = np.bincount(labels, minlength=len(names))
    found: dict[str, dict[str, NewClass]] = {}
    for label in np.argsort(-counts, kind="stable")[:MOST].tolist():
        new, known = np.flatnonzero(labels == label), np.flatnonzero(labels != label)
        if counts[label] >= FEW and len(known) >= 2 * FLAG_FOLDS:
            of = features[known], labels[known], groups[known]
            found[names[label]] = noticed(*of, features[new], groups[new], seed)
    return found


def noticed(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    new: np.ndarray,
    new_groups: np.ndarray,
    seed: int = 0,
) -> dict[str, NewClass]:
    """Ask `FLAGS` about the features of images of a new kind, `new` (M, D), beside known ones; by flag.

    The known images are scored in folds that keep groups whole, the new ones where their group was not learned from.
    """
    from sklearn.model_selection import StratifiedGroupKFold
    from threadpoolctl import threadpool_limits

    several = len(np.unique(labels)) > 1  # a head of one class has no energy
    flags = [flag for flag in FLAGS if several or flag != "energy"]
    inside = {flag: np.empty(len(features)) for flag in flags}
    outside = {flag: np.zeros(len(new)) for flag in flags}
    times = np.zeros(len(new))
    parts = StratifiedGroupKFold(FLAG_FOLDS, shuffle=True, random_state=seed)
    for train, test in parts.split(features, labels, groups):
        apart = ~np.isin(new_groups, groups[train])
        times += apart
        asked = np.concatenate([features[test], new[apart]])
        for flag in flags:
            with threadpool_limits(1):  # as for `linear_head`
                scores = FLAGS[flag](features[train], labels[train], asked)
            inside[flag][test] = scores[: len(test)]
            outside[flag][apart] += scores[len(test) :]
    return {
        flag: NewClass(
            score(outside[flag] / times > np.quantile(inside[flag], 1 - FALSE_ALARMS), new_groups),
            _area(inside[flag], outside[flag] / times, groups, new_groups),
        )
        for flag in flags
    }


def _mahalanobis(train: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """The distance by which a prediction is flagged (`leaf.evaluate.out_of_distribution`)."""
    return fit_gaussian(train, asked[:1], 0.0).distance(asked)


def _neighbours(train: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """Distance to the fifth nearest of the training images, features standardised and of length 1 (Sun 2022)."""
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler, normalize

    scaler = StandardScaler().fit(train)
    nearest = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(normalize(scaler.transform(train)))
    return nearest.kneighbors(normalize(scaler.transform(asked)))[0][:, -1]


def _energy(train: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The negative log of the sum of the exponentials of the linear head's logits (Liu 2020)."""
    from scipy.special import logsumexp

    logits = linear_head(train, labels, strength=HELD).decision_function(asked)
    logits = logits if logits.ndim == 2 else np.stack([-logits / 2, logits / 2], axis=1)
    return -logsumexp(logits, axis=1)


# How unlike the training images (M, D) of `labels` (M,) the images asked (N, D) are: float (N,), larger for less alike.
FLAGS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "mahalanobis": _mahalanobis,
    "neighbours": _neighbours,
    "energy": _energy,
}


def _area(inside: np.ndarray, outside: np.ndarray, inner: np.ndarray, outer: np.ndarray) -> Score:
    """Return the area under the ROC curve of scores that should be higher `outside`."""
    labels = np.repeat([0, 1], [len(inside), len(outside)])
    return Score(*auc_interval(labels, np.concatenate([inside, outside]), np.concatenate([inner, outer])))
