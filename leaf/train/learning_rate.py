"""Learning-rate schedules: constant, exponential, cosine, and the cyclical ones of Smith (2015)."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import keras
from keras import ops

from leaf.params import Params
from leaf.train.dataset import accumulation_steps


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
    step_updates: float = 1.0  # length of half a cycle in updates, above 0
    gamma: float = 1.0  # decay factor per update
    warmup_updates: float = 0.0
    total_updates: float = 1.0
    accumulation: int = 1  # micro-batches per update; Keras calls the schedule with the number of micro-batches so far

    def __call__(self, step: Any) -> Any:
        """Return the rate at micro-batch `step`, a number or an integer tensor, as a float32 scalar tensor."""
        update = ops.cast(ops.floor_divide(step, self.accumulation), "float32")
        if self.policy == "constant":
            return ops.convert_to_tensor(self.max, "float32")
        if self.policy == "exponential":
            return ops.maximum(self.base, self.max * self._decay(update))
        if self.policy == "cosine":
            height = self._cosine(update)
        else:
            cycle = ops.floor(1 + update / (2 * self.step_updates))
            height = ops.maximum(0.0, 1 - ops.abs(update / self.step_updates - 2 * cycle + 1))
            if self.policy == "triangular2":
                height /= ops.power(2.0, cycle - 1)
            elif self.policy == "exp_range":
                height *= self._decay(update)
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
