"""Baselines for the network: majority class, color histograms, and simple learners with cross-validation."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from leaf.evaluate.linear_head import STRENGTHS, linear_head

HELD = 0.01  # C for about a thousand features and a few hundred images
_MOST_IMAGES = 50_000  # maximum training images of a baseline, and images processed at once (100 MB of histograms)
_CHANNEL_BITS = 5  # 32 levels per channel
_JOINT_BITS = 3  # 8 × 8 × 8 colors
_BLOCK = 256


def baseline_probabilities(
    images: np.ndarray,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    rows: np.ndarray,
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], str]:
    """Fit the baselines to the training images and predict `rows`.

    Args:
        images: (N, H, W, 3), uint8 or float32, 0..255. Only the rows given below are read.
        train: rows and labels, int (M,) each. Above 50,000 images, an even sample that contains all classes is used.
        validation: rows and labels, int (V,) each, used to select the tuned baseline by Brier score.
        rows: int (R,), the images to predict.

    Returns:
        Probabilities for the validation images, float64 (V, C), and for `rows`, float64 (R, C), from `majority` (class
        shares), `histogram` (logistic regression on channel histograms), `joint_histogram` (the same on 512 joint
        colors) and `tuned_color` (the best of logistic regression and forests on both); and a description of the
        selected model.
    """
    train_rows, train_labels = train
    shares = np.bincount(train_labels) / len(train_labels)
    found = {"majority": (np.tile(shares, (len(validation[0]), 1)), np.tile(shares, (len(rows), 1)))}
    by_label = np.argsort(train_labels, kind="stable")
    sample = by_label[:: -(-len(by_label) // _MOST_IMAGES)]
    sample = np.union1d(sample, np.unique(train_labels, return_index=True)[1])
    labels, best, selected = train_labels[sample], np.inf, ""
    truth = np.eye(len(shares))[validation[1]]
    for name, describe in (("histogram", channel_histograms), ("joint_histogram", joint_histograms)):
        features = describe(images, train_rows[sample])
        for learner, fitted in _candidates(features, labels):
            on_validation = _predict(fitted, describe, images, validation[0])
            score = np.square(on_validation - truth).mean()
            if score < best or learner == _DEFAULT:
                predicted = on_validation, _predict(fitted, describe, images, rows)
            if learner == _DEFAULT:
                found[name] = predicted
            if score < best:
                best, selected, found["tuned_color"] = score, f"{learner} on {_COLORS[name]}", predicted
    found["tuned_color"] = found.pop("tuned_color")  # fixes the order of the keys
    return found, selected


_COLORS = {"histogram": "channel histograms", "joint_histogram": "512 joint colors"}
_DEFAULT = "logistic regression, C = 1"


def _candidates(features: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, Any]]:
    """Yield each candidate for the tuned baseline: its description and the fitted model."""
    from sklearn.ensemble import ExtraTreesClassifier

    for strength in STRENGTHS:
        yield f"logistic regression, C = {strength:g}", linear_head(features, labels, strength=strength)
    for leaf in (1, 3):
        trees = ExtraTreesClassifier(100, min_samples_leaf=leaf, random_state=0)
        yield f"forest of 100 trees, min_samples_leaf = {leaf}", trees.fit(features, labels)


def _predict(model: Any, describe: Callable, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    starts = range(0, len(rows), _MOST_IMAGES)
    blocks = [model.predict_proba(describe(images, rows[start : start + _MOST_IMAGES])) for start in starts]
    return np.concatenate(blocks).astype(np.float64)


def channel_histograms(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the share of each of 32 levels per channel, float32 (len(rows), 96).

    `images` is (N, H, W, 3), uint8 or float32, 0..255; its `rows` are read in blocks.
    """

    def levels(block: np.ndarray) -> np.ndarray:
        return (block >> 8 - _CHANNEL_BITS).astype(np.int64) + (np.arange(3) << _CHANNEL_BITS)

    return _histograms(images, rows, levels, 3 << _CHANNEL_BITS)


def joint_histograms(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the square roots of the shares of 512 colors, float32 (len(rows), 512).

    Euclidean distance between square roots is proportional to the Hellinger distance between the histograms.
    """

    def colors(block: np.ndarray) -> np.ndarray:
        red, green, blue = np.moveaxis((block >> 8 - _JOINT_BITS).astype(np.int64), -1, 0)
        return red << 2 * _JOINT_BITS | green << _JOINT_BITS | blue

    return np.sqrt(_histograms(images, rows, colors, 1 << 3 * _JOINT_BITS))


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


def logistic_regression(
    train: np.ndarray, train_labels: np.ndarray, features: np.ndarray, strength: float = 1.0
) -> np.ndarray:
    """Fit `linear_head` to `train` (M, D) and return class probabilities, float64 (N, C), for `features` (N, D)."""
    return linear_head(train, train_labels, strength=strength).predict_proba(features).astype(np.float64)


def nearest_neighbor(train: np.ndarray, train_labels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return the class of the nearest training image by Euclidean distance, one-hot float64 (N, C)."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=1).fit(train, train_labels).predict_proba(features)


def forest(train: np.ndarray, train_labels: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return class probabilities, float64 (N, C), from 50 extremely randomized trees (Geurts 2006)."""
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(50, random_state=0).fit(train, train_labels).predict_proba(features)


LEARNERS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "logistic": logistic_regression,
    "neighbour": nearest_neighbor,
    "forest": forest,
    "held": partial(logistic_regression, strength=HELD),
}


def held_out(
    learner: str, features: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Return a learner's out-of-fold probabilities, float64 (N, C).

    Args:
        learner: a key in `LEARNERS`.
        features: float (N, D).
        labels: int (N,), 0 … C − 1.
        groups: (N,). Groups are never split between folds, and folds are stratified.
        folds: number of folds.
        seed: seed of the folds.
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
    """Return which out-of-fold predictions are correct, bool (N,). See `held_out` for the arguments."""
    return held_out(learner, features, labels, groups, folds, seed).argmax(axis=1) == labels
