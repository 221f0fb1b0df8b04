"""The result of a training, and the metrics in its history."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = dict[str, Any]
Callback = Callable[[Row], None]


@dataclass
class Result:
    """The result of a training; the model has the best epoch's weights.

    Attributes:
        history: a row per epoch: epoch, loss, accuracy, validation_loss, validation_accuracy, learning_rate (of the
            last update), phase.
        best: the best epoch's row.
        stopped: `early` or `epochs`; for a linear probe `converged` or `max_iter`.
        steps_per_epoch: updates in an epoch.
        probe: for a linear probe, its `strength` C and the `iterations` of L-BFGS.
    """

    history: list[Row]
    best: Row
    stopped: str
    steps_per_epoch: int
    probe: dict[str, float] | None = None


def loss_and_accuracy_of(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_probability[np.arange(len(labels)), labels].mean()
    return {"loss": float(loss), "accuracy": float((logits.argmax(axis=1) == labels).mean())}
