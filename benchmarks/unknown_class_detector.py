"""Detect images of a class that is not in the training set, from features and a linear head.

The score is the sum of two standardized scores: ViM (Wang 2022, arXiv 2203.10807), the norm of the feature outside the
principal subspace minus the energy, and the energy itself (Liu 2020, arXiv 2010.03759). benchmarks/unknown_classes.py
compares it with other detectors; it was selected on apple and strawberry leaves.
"""

from dataclasses import dataclass

import numpy as np

from leaf.evaluate.baselines import HELD
from leaf.evaluate.linear_head import linear_head

DIMENSIONS = 64  # dimensions of the principal subspace
REJECTED = 0.05  # share of validation images above the threshold


@dataclass(frozen=True)
class UnknownClassDetector:
    """Score how unlike all training classes a feature vector is.

    Attributes:
        mean, scale: float32 (D,), standardize the features.
        basis: float32 (D, K), principal directions of the standardized training features.
        weights, bias: float32 (D, C) and (C,), the linear head on standardized features.
        alpha: weight of the residual norm.
        center, spread: float32 (2,), standardize ViM and energy.
        limit: 95th percentile of the scores of the validation images.
    """

    mean: np.ndarray
    scale: np.ndarray
    basis: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    alpha: float
    center: np.ndarray
    spread: np.ndarray
    limit: float

    def score(self, features: np.ndarray) -> np.ndarray:
        """Return the score of each row of `features` (N, D), float64 (N,); higher is less like a known class."""
        return ((self._parts(features) - self.center) / self.spread).sum(axis=1)

    def _parts(self, features: np.ndarray) -> np.ndarray:
        from scipy.special import logsumexp

        standard = (np.asarray(features, np.float32) - self.mean) / self.scale
        energy = -logsumexp(standard @ self.weights + self.bias, axis=1)
        return np.stack([self.alpha * _residual(standard, self.basis) + energy, energy], axis=1)


def fit_unknown_classes(
    features: np.ndarray, labels: np.ndarray, validation: np.ndarray | None = None
) -> UnknownClassDetector:
    """Fit the detector.

    Args:
        features: float (N, D), features of the training images.
        labels: int (N,), at least two classes.
        validation: float (M, D), features of validation images of known classes, which set the limit. The training
            images set it if None.
    """
    head = linear_head(features, labels, strength=HELD)
    scaler, logistic = head[0], head[-1]
    mean, scale = scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32)
    standard = (np.asarray(features, np.float32) - mean) / scale
    weights, bias = logistic.coef_.T, logistic.intercept_
    if weights.shape[1] == 1:  # two classes have one logit: split it into two
        weights, bias = np.hstack([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    _, _, directions = np.linalg.svd(standard, full_matrices=False)
    basis = directions[: min(DIMENSIONS, len(directions) // 2)].T.astype(np.float32)
    norm = float(_residual(standard, basis).mean())
    alpha = float((standard @ weights + bias).max(axis=1).mean() / norm) if norm > 1e-6 else 0.0
    start = UnknownClassDetector(
        mean,
        scale,
        basis,
        weights.astype(np.float32),
        bias.astype(np.float32),
        alpha,
        np.zeros(2, np.float32),
        np.ones(2, np.float32),
        np.inf,
    )
    known = features if validation is None else validation
    parts = start._parts(known)
    values = vars(start) | {"center": parts.mean(axis=0), "spread": parts.std(axis=0) + 1e-6}
    limit = float(np.quantile(UnknownClassDetector(**values).score(known), 1 - REJECTED))
    return UnknownClassDetector(**values | {"limit": limit})


def _residual(standard: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Return the norm of each row's component orthogonal to the span of `basis` (D, K), for `standard` (N, D)."""
    return np.linalg.norm(standard - (standard @ basis) @ basis.T, axis=1)
