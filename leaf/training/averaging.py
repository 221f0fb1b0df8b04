"""A moving average of the weights, one step per update."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops


class Average:
    """Exponential moving average of a model's weights, its moving statistics among them.

    Keras's own `use_ema` takes a step per micro-batch and overwrites the weights at the end of every `fit`; this one
    takes a step per update and never touches the weights outside `applied`.

    Args:
        model: whose weights are followed.
        momentum: share of the old average that is kept at each update. It starts lower, (1 + n) / (10 + n) after n
            updates, so that the random initial weights are soon forgotten.
    """

    def __init__(self, model: keras.Model, momentum: float) -> None:
        self.weights = [weight for weight in model.weights if "float" in str(weight.dtype)]
        self.momentum = momentum
        self.updates = 0
        self.values: list[Any] = [ops.copy(weight) for weight in self.weights]

    def update(self) -> None:
        """Take the weights after an update into account."""
        keep = min(self.momentum, (1 + self.updates) / (10 + self.updates))
        self.values = [
            ops.add(keep * value, (1 - keep) * weight) for value, weight in zip(self.values, self.weights, strict=True)
        ]
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average in place of the weights for a while."""
        raw = [ops.copy(weight) for weight in self.weights]
        for weight, value in zip(self.weights, self.values, strict=True):
            # A copy: JAX gives the memory of a weight away with the next update.
            weight.assign(np.array(ops.convert_to_numpy(value)))
        try:
            yield
        finally:
            for weight, value in zip(self.weights, raw, strict=True):
                weight.assign(value)

    def arrays(self) -> list[np.ndarray]:
        """The average as numpy arrays, to be kept on disk."""
        return [ops.convert_to_numpy(value) for value in self.values]

    def restore(self, arrays: Sequence[np.ndarray], updates: int) -> None:
        """Take up an average that `arrays` gave after so many updates."""
        self.values = list(arrays)
        self.updates = updates
