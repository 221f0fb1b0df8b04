"""Simple learners on features that do not learn: cross-validated in seconds where a network takes hours."""

from collections.abc import Callable

import numpy as np

from leaf.scoring.baselines import regression


def neighbour(train: np.ndarray, train_labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The label of the one nearest training image (N,), by Euclidean distance of features (M, D) and (N, D)."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=1).fit(train, train_labels).predict(asked)


LEARNERS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "logistic": regression,
    "neighbour": neighbour,
}


def cross_validated(
    learner: str, features: np.ndarray, labels: np.ndarray, groups: np.ndarray, folds: int, seed: int
) -> np.ndarray:
    """Which images (N,) a learner gets right, each asked in the one fold of `folds` that it is not learned in: bool.

    `features` (N, D), `labels` 0/1 (N,), `groups` (N,): a group stays in one fold. Stratified, drawn by `seed`.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    right = np.zeros(len(labels), bool)
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, labels, groups):
        answer = LEARNERS[learner](features[train], labels[train], features[test])
        right[test] = (answer >= 0.5) == labels[test]
    return right
