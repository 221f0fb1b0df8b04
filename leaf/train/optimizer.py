"""Loss, optimizer, training step and moving average of the weights."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from leaf.errors import LeafError, plural
from leaf.params import Params
from leaf.train.dataset import Batch, accumulation_steps
from leaf.train.distribution import on_all_devices
from leaf.train.learning_rate import Schedule


def make_optimizer(params: Params, schedule: Schedule) -> keras.optimizers.Optimizer:
    """Return a new optimizer with `schedule` that accumulates gradients over micro-batches."""
    accumulation = accumulation_steps(params) if accumulation_steps(params) > 1 else None
    if params.optimizer == "adam":
        return keras.optimizers.Adam(schedule, gradient_accumulation_steps=accumulation)
    adamw = keras.optimizers.AdamW(schedule, weight_decay=params.weight_decay, gradient_accumulation_steps=accumulation)
    adamw.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "scale"])
    return adamw


def compile_model(model: keras.Model, params: Params, schedule: Schedule) -> None:
    """Compile `model` with categorical cross-entropy on logits and a new, built optimizer."""
    model.compile(
        make_optimizer(params, schedule),
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=params.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    model.optimizer.build(model.trainable_variables)


def train_step(model: keras.Model, batch: Batch, params: Params) -> tuple[float, float]:
    """Update a compiled model once and return the batch's mean loss and accuracy before the update.

    Raises:
        LeafError: if memory is insufficient.
    """
    parts = accumulation_steps(params)
    micro_batches = list(zip(*(np.split(array, parts) for array in batch[:3]), strict=True))
    whole, images = params.batch_size, params.micro_batch or params.batch_size
    smaller = next((size for size in range(images // 2, 0, -1) if whole % size == 0), 1)
    remedy = (
        f"Set micro_batch to a smaller divisor of batch_size ({whole}), for example {smaller}; the updates stay the "
        "same."
    )
    remedy = remedy if images > 1 else "Reduce image_size."
    advice = f"micro_batch: out of memory with {plural(images, 'image')}. {remedy}"
    with out_of_memory_in_one_line(advice):
        if parts > 1 and model.train_function is not None:  # the first update creates `train_function`
            model.reset_metrics()  # so that the metrics are averaged over the micro-batches of this update
            return _accumulate(model, micro_batches)
        logs = model.train_on_batch(*micro_batches[0], return_dict=True)
        return _accumulate(model, micro_batches[1:]) if parts > 1 else (logs["loss"], logs["accuracy"])


def _accumulate(model: keras.Model, micro_batches: Sequence[tuple[np.ndarray, ...]]) -> tuple[float, float]:
    """Train on each micro-batch, but read the loss only once, because each read waits for the device."""
    if keras.backend.backend() == "jax":
        groups = [model.trainable_variables, model.non_trainable_variables]
        groups += [model.optimizer.variables, model.metrics_variables]
        state = tuple([variable.value for variable in group] for group in groups)
        for part in micro_batches:
            logs, state = model.train_function(state, iter([on_all_devices(part)]))
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
    else:
        for part in micro_batches:
            logs = model.train_function(iter([part]))
    return float(logs["loss"]), float(logs["accuracy"])


@contextmanager
def out_of_memory_in_one_line(advice: str) -> Iterator[None]:
    """Convert a backend's out-of-memory error to a LeafError with the text `advice`."""
    try:
        yield
    except Exception as error:
        # Each backend has its own error class; JAX's can be recognized only by its text.
        if type(error).__name__ not in ("ResourceExhaustedError", "OutOfMemoryError") and (
            "RESOURCE_EXHAUSTED" not in str(error)
        ):
            raise
        raise LeafError(advice) from None


class ExponentialMovingAverage:
    """Exponential moving average (EMA) of a model's weights, including BatchNormalization statistics.

    Keras's `use_ema` updates the average once per micro-batch and overwrites the weights at the end of every `fit`.
    This class updates the average once per update and changes the weights only within `applied`.

    `momentum` is the fraction of the old average kept at each update. After n updates, the fraction is limited to
    (1 + n) / (10 + n), so that the initial weights are forgotten quickly.
    """

    def __init__(self, model: keras.Model, momentum: float) -> None:
        self.weights = [weight for weight in model.weights if "float" in str(weight.dtype)]
        self.momentum, self.updates = momentum, 0
        self.values: list[Any] = [ops.copy(weight) for weight in self.weights]
        self._step = _compiled(_ema_step)

    def update(self) -> None:
        """Update the average with the current weights."""
        keep = min(self.momentum, (1 + self.updates) / (10 + self.updates))
        shares = np.array([keep, 1 - keep], np.float32)
        self.values = self._step(self.values, [weight.value for weight in self.weights], shares)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the average instead of the weights inside the `with` block."""
        before = [ops.copy(weight) for weight in self.weights]
        for weight, value in zip(self.weights, self.values, strict=True):
            # Copy, because JAX donates a weight's memory to the next update.
            weight.assign(np.array(ops.convert_to_numpy(value)))
        try:
            yield
        finally:
            for weight, value in zip(self.weights, before, strict=True):
                weight.assign(value)

    def arrays(self) -> list[np.ndarray]:
        """Return the average as NumPy arrays, for a checkpoint."""
        return [ops.convert_to_numpy(value) for value in self.values]

    def restore(self, arrays: Sequence[np.ndarray], updates: int) -> None:
        """Restore the average that `arrays` returned after `updates` updates."""
        self.values, self.updates = list(arrays), updates


def _ema_step(values: list[Any], weights: list[Any], shares: Any) -> list[Any]:
    return [ops.add(shares[0] * value, shares[1] * weight) for value, weight in zip(values, weights, strict=True)]


def _compiled(function: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Compile `function` on TensorFlow and JAX.

    Calling the backend separately for each weight took an eighth of convnext_atto's training time.
    """
    match keras.backend.backend():
        case "tensorflow":
            return sys.modules["tensorflow"].function(function, autograph=False)
        case "jax":
            return sys.modules["jax"].jit(function)
    return function
