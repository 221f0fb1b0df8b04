"""Linear probe: logistic regression on a frozen backbone's features, stored as the network's head.

This module does not import Keras.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from leaf.evaluate.linear_head import linear_head
from leaf.models.probe_files import EPSILON, LinearHead
from leaf.params import Params
from leaf.train.callbacks import Result, Row, loss_and_accuracy_of
from leaf.train.dataset import Dataset

if TYPE_CHECKING:
    import keras


def features_of(cached: Callable[[np.ndarray, np.ndarray], np.ndarray], dataset: Dataset) -> np.ndarray:
    """Return the features, float32 (n, D), of all images in `dataset`, computed by `cached(images, rows)`."""
    real = dataset.rows < len(dataset.images)
    features = cached(dataset.images, dataset.rows[real])
    if dataset.synthetic is None or real.all():
        return features
    return np.concatenate([features, cached(dataset.synthetic, dataset.rows[~real] - len(dataset.images))])


def train_probe(
    features: Sequence[np.ndarray], datasets: Sequence[Dataset], params: Params
) -> tuple[Result, LinearHead]:
    """Fit the BatchNormalization and logits layers to a frozen backbone's features with `linear_head`.

    `features` are those of the training and of the validation images, each float32 (N, D). The inner folds that select
    C keep each group together. Validation metrics are only logged, not used for model selection. Of `params`, only
    `balance` and `seed` are used. The history of the result has one row with epoch 0 and learning rate nan.
    """
    train, balanced = datasets[0], params.balance == "class_weight"
    scaler, regression = linear_head(features[0], train.labels, train.groups, balanced, params.seed)
    gamma = np.sqrt(scaler.var_ + EPSILON) / scaler.scale_
    kernel, bias = regression.coef_.T, regression.intercept_
    if len(bias) == 1:  # with two classes, scikit-learn fits the difference between the logits
        kernel, bias = kernel * [-0.5, 0.5], bias * [-0.5, 0.5]
    weights = (gamma, np.zeros_like(gamma), scaler.mean_, scaler.var_, kernel, bias)
    *normalization, kernel, bias = (array.astype(np.float32) for array in weights)
    head = LinearHead(tuple(normalization), kernel, bias)
    row: Row = {"epoch": 0, "learning_rate": math.nan, "phase": 1}
    for name, inputs, dataset in zip(("", "validation_"), features, datasets, strict=True):
        logits = head.logits(inputs).astype(np.float64)
        row |= {f"{name}{key}": value for key, value in loss_and_accuracy_of(logits, dataset.labels).items()}
    probe = {"strength": float(regression.C), "iterations": int(regression.n_iter_.max())}
    converged = regression.n_iter_.max() < regression.max_iter
    return Result([row], row, "converged" if converged else "max_iter", 1, probe), head


def fit_probe(model: "keras.Model", datasets: Sequence[Dataset], params: Params) -> Result:
    """Fit the head of `model` on training and validation images with `train_probe`."""
    from leaf.models.prediction import cached_features

    features = [features_of(partial(cached_features, model), each) for each in datasets]
    result, head = train_probe(features, datasets, params)
    model.get_layer("batch_normalization").set_weights(head.normalization)
    model.get_layer("dense").set_weights([head.kernel, head.bias])
    return result
