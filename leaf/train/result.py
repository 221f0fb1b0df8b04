"""The result of training, and the metrics in its history."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = dict[str, Any]
Callback = Callable[[Row], None]


@dataclass
class Result:
    """The result of training; the model keeps the best epoch's weights.

    Attributes:
        history: one row per epoch: epoch, loss, accuracy, validation_loss, validation_accuracy, learning_rate (of the
            last update), phase.
        best: the best epoch's row.
        stopped: why training ended: `early` or `epochs`; for a linear probe, `converged` or `max_iter`.
        steps_per_epoch: number of updates in an epoch.
        probe: for a linear probe, its `strength` C and the number of L-BFGS `iterations`.
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
