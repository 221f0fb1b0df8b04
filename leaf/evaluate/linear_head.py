"""Multinomial logistic regression on fixed features, optionally with a search for the regularization strength."""

from typing import Any

import numpy as np

STRENGTHS = np.logspace(-4, 1, 6)  # scikit-learn's C: smaller values regularize more
_INNER_FOLDS = 5


def linear_head(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray | None = None,
    balanced: bool = False,
    seed: int = 0,
    strength: float = 1.0,
) -> Any:
    """Fit L2-regularized logistic regression to standardized features with up to 2,000 L-BFGS iterations.

    Args:
        features: float (N, D).
        labels: int (N,), at least two classes.
        groups: (N,). If given, C is selected from `STRENGTHS` by log loss in grouped inner folds.
        balanced: weight all classes equally.
        seed: seed of the inner folds.
        strength: C to use if `groups` is None.

    Returns:
        The fitted pipeline of the scaler and the regression.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    weight = "balanced" if balanced else None
    # On a busy machine, BLAS threads make matrix products of this size up to 40× slower.
    with threadpool_limits(1):
        scaler = StandardScaler().fit(features)
        standard = scaler.transform(features)
        strength = strength if groups is None else _best_strength(standard, labels, groups, weight, seed)
        head = LogisticRegression(C=strength, max_iter=2000, class_weight=weight).fit(standard, labels)
    return make_pipeline(scaler, head)


def _best_strength(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, weight: str | None, seed: int
) -> float:
    """Return the C with the lowest log loss in inner folds, or 1 if a class has fewer than two groups."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold

    classes = np.unique(labels)
    folds = min(_INNER_FOLDS, *(len(np.unique(groups[labels == label])) for label in classes))
    if folds < 2:
        return 1.0
    losses = np.zeros(len(STRENGTHS))
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, labels, groups):
        if len(np.unique(labels[train])) < len(classes):  # possible if a group contains several classes
            continue
        model = LogisticRegression(max_iter=2000, class_weight=weight, warm_start=True)
        for number, strength in enumerate(STRENGTHS):
            model.set_params(C=strength).fit(features[train], labels[train])
            probabilities = model.predict_proba(features[test])
            losses[number] += log_loss(labels[test], probabilities, labels=classes, normalize=False)
    return float(STRENGTHS[losses.argmin()]) if losses.any() else 1.0
