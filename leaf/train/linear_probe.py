"""A linear probe: logistic regression on the features of a frozen backbone, stored as the head of the network."""

import math

import keras
import numpy as np

from leaf.evaluate.linear_head import linear_head
from leaf.params import Params
from leaf.train.checkpoint import CheckpointFile
from leaf.train.dataset import Dataset
from leaf.train.trainer import Callback, Result, Row, features_of, loss_and_accuracy_of


def train_probe(
    model: keras.Model,
    dataset: Dataset,
    validation: Dataset,
    params: Params,
    *,
    groups: np.ndarray,
    checkpoint_file: CheckpointFile | None = None,  # noqa: ARG001
    on_epoch_end: Callback | None = None,
    quiet: bool | None = None,  # noqa: ARG001
) -> Result:
    """Fit the head of `model`, BatchNormalization and logits, to convergence on the features of its frozen backbone.

    Args:
        model: images (N,H,W,3) float32 0..255 to logits (N,C).
        dataset: training images; their features are cached (`leaf.models.feature_cache`).
        validation: logged only; not used for model selection.
        params: only `balance` and `seed` are used.
        groups: (len(dataset),), kept together in the inner folds that choose the regularization strength.
        checkpoint_file, quiet: ignored; the interface of `train`.
        on_epoch_end: as in `train`.

    Returns:
        One row of history with epoch 0 and learning rate nan.
    """
    features, labels = features_of(model, dataset), dataset.all_labels
    scaler, regression = linear_head(features, labels, groups, params.balance == "class_weight", params.seed)
    normalization, dense = model.get_layer("batch_normalization"), model.get_layer("dense")
    gamma = np.sqrt(scaler.var_ + normalization.epsilon) / scaler.scale_
    normalization.set_weights([gamma, np.zeros_like(gamma), scaler.mean_, scaler.var_])
    kernel, bias = regression.coef_.T, regression.intercept_
    if len(bias) == 1:  # with two classes scikit-learn fits the difference of the logits
        kernel, bias = kernel * [-0.5, 0.5], bias * [-0.5, 0.5]
    dense.set_weights([kernel, bias])
    row: Row = {"epoch": 0, "learning_rate": math.nan, "phase": 1}
    validated = features_of(model, validation)
    for name, inputs, expected in (("", features, labels), ("validation_", validated, validation.all_labels)):
        logits = np.asarray(dense(normalization(inputs)), np.float64)
        row |= {f"{name}{key}": value for key, value in loss_and_accuracy_of(logits, expected).items()}
    if on_epoch_end:
        on_epoch_end(row)
    probe = {"strength": float(regression.C), "iterations": int(regression.n_iter_.max())}
    converged = regression.n_iter_.max() < regression.max_iter
    return Result([row], row, "converged" if converged else "max_iter", 1, probe)
