"""Learning-rate schedule, loss, optimizer, training step and moving average of the weights."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from leaf.errors import LeafError
from leaf.params import Params
from leaf.train.dataset import Batch, accumulation_steps
from leaf.train.distribution import on_all_devices


@keras.saving.register_keras_serializable("leaf")
@dataclass(eq=False)
class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate as a function of the number of updates made so far.

    Let n be that number, s `step_updates`, cycle = floor(1 + n / 2s) and x = |n / s − 2·cycle + 1|:

    - triangular: base + (max − base)·max(0, 1 − x)
    - triangular2: as triangular, with the height halved in each cycle (divided by 2^(cycle − 1))
    - exp_range: as triangular, with the height multiplied by gamma^n
    - constant: max
    - exponential: max·gamma^n, never below base
    - cosine: linear warm-up from base to max over `warmup_updates`, then half a cosine wave down to base at
      `total_updates`

    References:
        Smith (2015), Cyclical Learning Rates for Training Neural Networks.
    """

    policy: str
    base: float  # lowest rate
    max: float  # highest rate
    step_updates: float = 1.0  # length of half a cycle, above 0
    gamma: float = 1.0  # decay factor per update
    warmup_updates: float = 0.0
    total_updates: float = 1.0
    accumulation: int = 1  # micro-batches per update; Keras calls the schedule with the number of micro-batches so far

    def __call__(self, step: Any) -> Any:
        """Return the rate at micro-batch `step`, a number or an integer tensor, as a float32 scalar tensor."""
        update = ops.cast(ops.floor_divide(step, self.accumulation), "float32")
        match self.policy:
            case "constant":
                return ops.convert_to_tensor(self.max, "float32")
            case "exponential":
                return ops.maximum(self.base, self.max * self._decay(update))
            case "cosine":
                height = self._cosine(update)
            case "triangular" | "triangular2" | "exp_range":
                cycle = ops.floor(1 + update / (2 * self.step_updates))
                height = ops.maximum(0.0, 1 - ops.abs(update / self.step_updates - 2 * cycle + 1))
                if self.policy == "triangular2":
                    height /= ops.power(2.0, cycle - 1)
                elif self.policy == "exp_range":
                    height *= self._decay(update)
            case _:
                raise ValueError(f"policy: {self.policy!r} is unknown")
        return self.base + (self.max - self.base) * height

    def _decay(self, update: Any) -> Any:
        return ops.exp(update * math.log(self.gamma))

    def _cosine(self, update: Any) -> Any:
        rise = update / max(self.warmup_updates, 1.0)
        length = max(self.total_updates - self.warmup_updates, 1.0)
        fall = 0.5 * (1 + ops.cos(math.pi * ops.clip((update - self.warmup_updates) / length, 0.0, 1.0)))
        return ops.where(update < self.warmup_updates, rise, fall)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments, which Keras saves with the optimizer."""
        return asdict(self)


def make_schedule(params: Params, phase: int, steps: int, images: int) -> Schedule:
    """Return the schedule of phase 1 (frozen backbone, constant rate) or phase 2.

    `steps` is the number of updates in an epoch, and `images` the number of training images: with `step_unit: images`,
    half a cycle is step_epochs × images updates.
    """
    if phase == 1:
        return Schedule("constant", 0.0, params.frozen_learning_rate, accumulation=accumulation_steps(params))
    rate = params.learning_rate
    return Schedule(
        policy=rate.policy,
        base=rate.base,
        max=rate.max,
        step_updates=rate.step_epochs * (images if rate.step_unit == "images" else steps),
        gamma=rate.gamma,
        warmup_updates=rate.warmup_epochs * steps,
        total_updates=(params.epochs - params.frozen_epochs) * steps,
        accumulation=accumulation_steps(params),
    )


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
    advice = (
        f"micro_batch: out of memory with {images} images. Set micro_batch to a smaller divisor of "
        f"batch_size ({whole}), for example {smaller}; the updates stay the same."
    )
    with out_of_memory_in_one_line(advice):
        if parts > 1 and model.train_function is not None:  # Keras creates it in the first update
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
    This class updates it once per update and changes the weights only within `applied`.

    `momentum` is the fraction of the old average kept at each update. After n updates it is at most (1 + n) / (10 + n),
    so that the initial weights are forgotten quickly.
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
    """Compile `function` for the backend; separate calls per weight took an eighth of convnext_atto's training time."""
    match keras.backend.backend():
        case "tensorflow":
            return sys.modules["tensorflow"].function(function, autograph=False)
        case "jax":
            return sys.modules["jax"].jit(function)
    return function
