"""Baselines for comparison with the network (class shares and color histograms), and simple learners."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from leaf.evaluate.linear_head import STRENGTHS, linear_head

HELD = 0.01  # C for about a thousand features and a few hundred images
_MOST_IMAGES = 50_000  # maximum number of training images, and of images predicted at once (100 MB of histograms)
_BLOCK = 16  # images per block, small enough for the CPU cache
_COLORS = {"histogram": "channel histograms", "joint_histogram": "512 joint colors"}
_DEFAULT = "logistic regression, C = 1"


def baseline_probabilities(
    images: np.ndarray,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    rows: np.ndarray,
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], str]:
    """Fit the baselines to the training images and predict `rows`.

    Args:
        images: (N, H, W, 3), uint8 or float32, 0..255.
        train: rows and labels, int (M,) each. If M is above 50,000, a sample that contains all classes is used.
        validation: rows and labels, int (V,) each, to select the tuned baseline by Brier score.
        rows: int (R,), the images to predict.

    Returns:
        A dict and a description of the tuned baseline. The dict maps each baseline to the probabilities of the
        validation images, float64 (V, C), and of `rows`, float64 (R, C). The baselines are `majority` (class shares),
        `histogram` (logistic regression on channel histograms), `joint_histogram` (logistic regression on a histogram
        of 512 joint colors) and `tuned_color` (the best logistic regression or forest on either histogram).
    """
    train_rows, train_labels = train
    shares = np.bincount(train_labels) / len(train_labels)
    found = {"majority": (np.tile(shares, (len(validation[0]), 1)), np.tile(shares, (len(rows), 1)))}
    by_label = np.argsort(train_labels, kind="stable")
    sample = by_label[:: -(-len(by_label) // _MOST_IMAGES)]
    sample = np.union1d(sample, np.unique(train_labels, return_index=True)[1])
    best, selected, tuned = np.inf, "", found["majority"]
    truth = np.eye(len(shares))[validation[1]]
    for name, describe in (("histogram", channel_histograms), ("joint_histogram", joint_histograms)):
        learners, models = zip(*_candidates(describe(images, train_rows[sample]), train_labels[sample]), strict=True)
        on_validation = _predict(models, describe, images, validation[0])
        errors = [np.square(each - truth).mean() for each in on_validation]
        default, lowest = learners.index(_DEFAULT), int(np.argmin(errors))
        on_rows = _predict([models[default], models[lowest]], describe, images, rows)
        found[name] = on_validation[default], on_rows[0]
        if errors[lowest] < best:
            best, selected = errors[lowest], f"{learners[lowest]} on {_COLORS[name]}"
            tuned = on_validation[lowest], on_rows[1]
    return {**found, "tuned_color": tuned}, selected


def _candidates(features: np.ndarray, labels: np.ndarray) -> Iterator[tuple[str, Any]]:
    """Yield the description and the fitted model of each candidate for the tuned baseline."""
    for strength in STRENGTHS:
        yield f"logistic regression, C = {strength:g}", linear_head(features, labels, strength=strength)
    for leaf in (1, 3):
        yield f"forest of 100 trees, min_samples_leaf = {leaf}", _forest(features, labels, 100, leaf)


def _predict(models: Sequence[Any], describe: Callable, images: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """Return the probabilities that each model predicts for `rows`, float64 (R, C) each."""
    blocks = []
    for start in range(0, len(rows), _MOST_IMAGES):
        features = describe(images, rows[start : start + _MOST_IMAGES])
        blocks.append([model.predict_proba(features).astype(np.float64) for model in models])
    return [np.concatenate(each) for each in zip(*blocks, strict=True)]


def channel_histograms(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return histograms of R `rows` of `images` (N, H, W, 3), 0..255, with 32 bins per channel, as float32 (R, 96)."""
    return _histograms(images, rows, lambda block: (block >> 3) + np.arange(0, 96, 32), 96)


def joint_histograms(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the square roots of histograms of 8 × 8 × 8 colors, float32 (R, 512); see `channel_histograms`.

    The Euclidean distance between square roots is proportional to the Hellinger distance between histograms.
    """
    return np.sqrt(_histograms(images, rows, lambda block: (block >> 5) @ np.array([64, 8, 1]), 512))


def _histograms(
    images: np.ndarray, rows: np.ndarray, bins_of: Callable[[np.ndarray], np.ndarray], bins: int
) -> np.ndarray:
    histograms = np.empty((len(rows), bins), np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = np.clip(images[rows[start : start + _BLOCK]], 0, 255).astype(np.uint8)
        found = bins_of(block).reshape(len(block), -1) + np.arange(len(block))[:, None] * bins
        counts = np.bincount(found.ravel(), minlength=len(block) * bins).reshape(len(block), bins)
        histograms[start : start + _BLOCK] = counts / (block.shape[1] * block.shape[2])
    return histograms


def _nearest_neighbor(features: np.ndarray, labels: np.ndarray) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=1).fit(features, labels)


def _forest(features: np.ndarray, labels: np.ndarray, trees: int = 50, leaf: int = 1) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(trees, min_samples_leaf=leaf, random_state=0).fit(features, labels)


# Each function fits a model with `predict_proba` to features (N, D) and labels (N,) and returns it.
LEARNERS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "logistic": linear_head,
    "neighbour": _nearest_neighbor,
    "forest": _forest,
    "held": partial(linear_head, strength=HELD),
}


def held_out(
    learner: str, features: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Return the out-of-fold probabilities of a learner in `LEARNERS`, float64 (N, C).

    `features` are float (N, D), and `labels` int (N,), 0 … C − 1. Folds are stratified and grouped by `groups` (N,).
    """
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.zeros((len(labels), labels.max() + 1))
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, labels, groups):
        model = LEARNERS[learner](features[train], labels[train])
        found[test[:, None], np.unique(labels[train])] = model.predict_proba(features[test])
    return found


def cross_validated(
    learner: str, features: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int = 5, seed: int = 0
) -> np.ndarray:
    """Return whether each out-of-fold prediction of `held_out` is correct, bool (N,)."""
    return held_out(learner, features, labels, groups, folds, seed).argmax(axis=1) == labels
