"""A moving average of the weights, one step per update."""

import sys
from collections.abc import Callable, Iterator, Sequence
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
        self._mixed = _compiled(_mix)

    def update(self) -> None:
        """Take the weights after an update into account."""
        keep = min(self.momentum, (1 + self.updates) / (10 + self.updates))
        shares = np.array([keep, 1 - keep], np.float32)
        self.values = self._mixed(self.values, [weight.value for weight in self.weights], shares)
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


def _mix(values: list[Any], weights: list[Any], shares: Any) -> list[Any]:
    return [ops.add(shares[0] * value, shares[1] * weight) for value, weight in zip(values, weights, strict=True)]


def _compiled(function: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """One call of the backend for all weights: hundreds of small ones took an eighth of a training of convnext_atto."""
    match keras.backend.backend():
        case "tensorflow":
            return sys.modules["tensorflow"].function(function, autograph=False)
        case "jax":
            return sys.modules["jax"].jit(function)
    return function
