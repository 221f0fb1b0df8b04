"""What a network must beat: always the commoner class, and a logistic regression on colours alone."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


STRENGTHS = np.logspace(-4, 1, 6)  # scikit-learn's C: small holds the weights close to 0
_INNER_FOLDS = 5
HELD = 0.01  # C that holds the weights so close to 0 as hundreds of images with a thousand features want


def logistic_regression(
    train: np.ndarray, train_labels: np.ndarray, features: np.ndarray, strength: float = 1.0
) -> np.ndarray:
    """Probabilities, float64 (N, C), by logistic regression on standardised features.

    `train` (M, D) with labels of all C classes, `features` (N, D) to predict for, `strength` as of `linear_head`.
    """
    return linear_head(train, train_labels, strength=strength).predict_proba(features).astype(np.float64)


def linear_head(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    balanced: bool = False,
    seed: int = 0,
    strength: float = 1.0,
) -> "Pipeline":
    """Fit multinomial logistic regression on standardised features to convergence (L-BFGS, an L2 penalty).

    Args:
        features: (N, D).
        labels: int (N,), of at least two classes.
        groups: (N,); where given, the strength C of `STRENGTHS` is chosen by the log loss in inner folds that keep
            each group whole.
        balanced: every class weighs the same in all.
        seed: draws the inner folds.
        strength: C where no groups are given.

    Returns:
        scikit-learn's pipeline of StandardScaler and LogisticRegression, with `predict_proba`, in order of the labels.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    weight = "balanced" if balanced else None
    # One thread: on products so small several wait for one another, 40 times as long on a busy machine.
    with threadpool_limits(1):
        scaler = StandardScaler().fit(features)
        standard = scaler.transform(features)
        strength = strength if groups is None else _strength(standard, labels, groups, weight, seed)
        head = LogisticRegression(C=strength, max_iter=2000, class_weight=weight).fit(standard, labels)
    return make_pipeline(scaler, head)


def _strength(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, weight: str | None, seed: int) -> float:
    """The C of least log loss in the inner folds; 1 where a class has too few groups for two folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold

    classes = np.unique(labels)
    folds = min(_INNER_FOLDS, *(len(np.unique(groups[labels == label])) for label in classes))
    if folds < 2:
        return 1.0
    losses = np.zeros(len(STRENGTHS))
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, labels, groups):
        if len(np.unique(labels[train])) < len(classes):  # groups of several classes may leave none elsewhere
            continue
        model = LogisticRegression(max_iter=2000, class_weight=weight, warm_start=True)
        for number, strength in enumerate(STRENGTHS):
            probabilities = (
                model.set_params(C=strength).fit(features[train], labels[train]).predict_proba(features[test])
            )
            losses[number] += log_loss(labels[test], probabilities, labels=classes, normalize=False)
    return float(STRENGTHS[losses.argmin()]) if losses.any() else 1.0


def baseline_probabilities(
    images: np.ndarray, train_rows: np.ndarray, train_labels: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Each baseline's probabilities, float64 (len(rows), C), for `rows` of `images`.

    They learn from the real training images alone, about `_MOST` where there are more. `majority` knows the classes'
    shares, `histogram` each channel by itself, `joint_histogram` which colours occur: the hardest of them to beat.
    """
    result = {"majority": np.tile(np.bincount(train_labels) / len(train_labels), (len(rows), 1))}
    by_label = np.argsort(train_labels, kind="stable")
    learnt = np.union1d(by_label[:: -(-len(by_label) // _MOST)], np.unique(train_labels, return_index=True)[1])
    for name, describe in (("histogram", channel_histograms), ("joint_histogram", joint_histograms)):
        head = linear_head(describe(images, train_rows[learnt]), train_labels[learnt])
        blocks = (describe(images, rows[start : start + _MOST]) for start in range(0, len(rows), _MOST))
        result[name] = np.concatenate([head.predict_proba(block).astype(np.float64) for block in blocks])
    return result


_MOST = 50_000  # images described at once: 100 MB of colours, and hundreds of images for each of their weights
_CHANNEL_BITS = 5  # 32 levels of each channel by itself
_JOINT_BITS = 3  # of each channel: 8 × 8 × 8 colours
_BLOCK = 256


def channel_histograms(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Shares of 32 levels of red, of green and of blue in each image, float32 (len(rows), 96).

    `images`: (N, H, W, 3) uint8 or float32 in 0..255, `rows` of it; read a block at a time.
    """
    shift = 8 - _CHANNEL_BITS

    def levels(block: np.ndarray) -> np.ndarray:
        return (block >> shift).astype(np.int64) + (np.arange(3) << _CHANNEL_BITS)

    return _histograms(images, rows, levels, 3 << _CHANNEL_BITS)


def joint_histograms(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Square roots of the shares of 512 colours in each image, float32 (len(rows), 512).

    The root makes Euclidean distance Hellinger's, which suits histograms.
    """
    shift = 8 - _JOINT_BITS

    def colours(block: np.ndarray) -> np.ndarray:
        red, green, blue = np.moveaxis((block >> shift).astype(np.int64), -1, 0)
        return red << 2 * _JOINT_BITS | green << _JOINT_BITS | blue

    return np.sqrt(_histograms(images, rows, colours, 1 << 3 * _JOINT_BITS))


def _histograms(
    images: np.ndarray, rows: np.ndarray, bins_of: Callable[[np.ndarray], np.ndarray], bins: int
) -> np.ndarray:
    histograms = np.empty((len(rows), bins), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = np.clip(images[rows[start : start + _BLOCK]], 0, 255).astype(np.uint8)
        found = bins_of(block).reshape(len(block), -1)
        found += np.arange(len(block))[:, None] * bins
        counts = np.bincount(found.ravel(), minlength=len(block) * bins).reshape(len(block), bins)
        histograms[start : start + _BLOCK] = counts / (block.shape[1] * block.shape[2])
    return histograms


def nearest_neighbour(train: np.ndarray, train_labels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """What the one nearest training image is, float64 (N, C), by Euclidean distance of features (M, D) and (N, D)."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=1).fit(train, train_labels).predict_proba(features)


def forest(train: np.ndarray, train_labels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Probabilities, float64 (N, C), by fifty random trees (Geurts 2006), of features (M, D) and (N, D)."""
    from sklearn.ensemble import ExtraTreesClassifier

    trees = ExtraTreesClassifier(50, random_state=0)
    return trees.fit(train, train_labels).predict_proba(features)


LEARNERS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "logistic": logistic_regression,
    "neighbour": nearest_neighbour,
    "forest": forest,
    "held": partial(logistic_regression, strength=HELD),
}


def held_out(
    learner: str, features: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Probabilities, float64 (N, C), of a learner for each image in the one fold that it was not trained on.

    `features` (N, D), `labels` int (N,) below C, `groups` (N,): a group stays in one fold. Stratified, drawn by `seed`.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.zeros((len(labels), labels.max() + 1))
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, labels, groups):
        classes = np.unique(labels[train])
        found[test[:, None], classes] = LEARNERS[learner](features[train], labels[train], features[test])
    return found


def cross_validated(
    learner: str, features: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Which images (N,) a learner predicts right when it is `held_out`: bool."""
    return held_out(learner, features, labels, groups, folds, seed).argmax(axis=1) == labels
