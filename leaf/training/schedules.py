"""The learning rate, set anew before every update.

The cyclical policies are those of L. N. Smith, "Cyclical Learning Rates for Training Neural Networks" (2015,
arXiv 1506.01186), with iterations counted from 0.
"""

import math
from typing import Any

import keras
from keras import ops

from leaf.training.recipe import Rate, Recipe

POLICIES = ("triangular", "triangular2", "exp_range", "constant", "exponential", "cosine")


@keras.saving.register_keras_serializable("leaf")
class LearningRate(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate as a function of the update's number, from 0.

    With n the update, s `step_updates`, cycle = floor(1 + n / 2s) and x = |n / s − 2·cycle + 1|:

    - triangular: base + (max − base)·max(0, 1 − x)
    - triangular2: the same height halved with each cycle, / 2^(cycle − 1)
    - exp_range: the same height times gamma^n
    - constant: max
    - exponential: max·gamma^n, never below base
    - cosine: from base to max in a line over `warmup_updates`, then down to base along half a cosine that ends at
      `total_updates`

    Args:
        policy: one of `POLICIES`.
        base, max: the lowest and the highest rate.
        step_updates: half a cycle, in updates; above 0.
        gamma: factor per update of exp_range and exponential.
        warmup_updates, total_updates: in updates, for cosine.
        accumulation: micro-batches in one update. An optimizer with `gradient_accumulation_steps` asks its schedule
            with the number of the micro-batch, so that is divided first.
    """

    def __init__(
        self,
        policy: str,
        base: float,
        max: float,
        step_updates: float = 1.0,
        gamma: float = 1.0,
        warmup_updates: float = 0.0,
        total_updates: float = 1.0,
        accumulation: int = 1,
    ) -> None:
        super().__init__()
        if policy not in POLICIES:
            raise ValueError(f"policy: {policy!r}; valid: {', '.join(POLICIES)}")
        self.policy, self.base, self.max = policy, base, max
        self.step_updates, self.gamma = step_updates, gamma
        self.warmup_updates, self.total_updates = warmup_updates, total_updates
        self.accumulation = accumulation

    def __call__(self, step: Any) -> Any:
        """The rate at micro-batch `step` (a number or an integer tensor), a float32 scalar tensor."""
        update = ops.cast(ops.floor_divide(step, self.accumulation), "float32")
        if self.policy == "constant":
            return ops.convert_to_tensor(self.max, "float32")
        if self.policy == "exponential":
            return ops.maximum(self.base, self.max * self._decay(update))
        height = self._cosine(update) if self.policy == "cosine" else self._cycle(update)
        return self.base + (self.max - self.base) * height

    def _cycle(self, update: Any) -> Any:
        cycle = ops.floor(1 + update / (2 * self.step_updates))
        x = ops.abs(update / self.step_updates - 2 * cycle + 1)
        height = ops.maximum(0.0, 1 - x)
        if self.policy == "triangular2":
            return height / ops.power(2.0, cycle - 1)
        return height * self._decay(update) if self.policy == "exp_range" else height

    def _decay(self, update: Any) -> Any:
        return ops.exp(update * math.log(self.gamma))

    def _cosine(self, update: Any) -> Any:
        rise = update / max(self.warmup_updates, 1.0)
        length = max(self.total_updates - self.warmup_updates, 1.0)
        fall = 0.5 * (1 + ops.cos(math.pi * ops.clip((update - self.warmup_updates) / length, 0.0, 1.0)))
        return ops.where(update < self.warmup_updates, rise, fall)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor, for a saved optimizer."""
        names = ("policy", "base", "max", "step_updates", "gamma", "warmup_updates", "total_updates", "accumulation")
        return {name: getattr(self, name) for name in names}


def schedule(recipe: Recipe, phase: int, steps: int, images: int) -> LearningRate:
    """The schedule of one phase of a recipe.

    Args:
        recipe: what is asked for. Phase 1 (backbone frozen) has the constant `frozen_learning_rate`.
        phase: 1 or 2, see `Recipe.phase`.
        steps: updates in an epoch.
        images: training images; `step_unit: images` takes step_epochs × images as updates, as the report did.
    """
    frozen = Rate(policy="constant", max=recipe.frozen_learning_rate, base=0.0)
    rate = frozen if phase == 1 else recipe.learning_rate
    return LearningRate(
        policy=rate.policy,
        base=rate.base,
        max=rate.max,
        step_updates=rate.step_epochs * (images if rate.step_unit == "images" else steps),
        gamma=rate.gamma,
        warmup_updates=rate.warmup_epochs * steps,
        total_updates=(recipe.epochs - recipe.frozen_epochs) * steps,
        accumulation=recipe.accumulation,
    )
