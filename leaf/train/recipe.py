"""Everything that decides how a network is fitted, as one value.

The names are those of params.yaml, and so are the meanings, the valid values and the defaults: they stand in
`leaf.params` and nowhere else.
"""

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class LearningRate:
    """The learning rate over the updates; see `leaf.train.optimizer.Schedule`."""

    policy: str
    base: float
    max: float
    step_epochs: float
    step_unit: str
    gamma: float
    warmup_epochs: float


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the training images; see `leaf.train.augmentation`."""

    flip: str
    background: str
    rotation: float
    zoom: float
    translation: float
    contrast: float
    rand_augment: float
    mixup: float
    cutmix: float


@dataclass(frozen=True)
class Recipe:
    """The parameters of training."""

    seed: int
    balance: str
    frozen_epochs: int
    frozen_learning_rate: float
    freeze_depth: int | str
    batch_size: int
    micro_batch: int
    distribution: str
    epochs: int
    patience: int
    monitor: str
    optimizer: str
    weight_decay: float
    label_smoothing: float
    weight_averaging: float
    deterministic: bool
    learning_rate: LearningRate
    augmentation: Augmentation

    @classmethod
    def from_params(cls, params: Any) -> "Recipe":
        """Take the fields of this class from the attributes of `params`, which may have others beside them."""
        values = _attributes(cls, params)
        values["learning_rate"] = LearningRate(**_attributes(LearningRate, params.learning_rate))
        values["augmentation"] = Augmentation(**_attributes(Augmentation, params.augmentation))
        return cls(**values)

    @property
    def accumulation(self) -> int:
        """Micro-batches in one update."""
        return self.batch_size // self.micro_batch if self.micro_batch else 1

    def phase(self, epoch: int) -> int:
        """Phase of an epoch, counted from 1: 1 while the whole backbone is frozen, then 2."""
        return 1 if epoch <= self.frozen_epochs else 2


def _attributes(kind: type, params: Any) -> dict[str, Any]:
    return {field.name: getattr(params, field.name) for field in fields(kind)}
