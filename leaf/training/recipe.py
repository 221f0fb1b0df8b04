"""Everything that decides how a network is fitted, as one value."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from leaf.errors import LeafError


@dataclass(frozen=True)
class Rate:
    """The learning rate over the updates; see `leaf.training.optimizer`."""

    policy: str = "triangular"
    base: float = 1e-4
    max: float = 1e-3
    step_epochs: float = 4
    step_unit: str = "epochs"
    gamma: float = 0.99994
    warmup_epochs: float = 0


@dataclass(frozen=True)
class Changes:
    """Random changes of the training images; see `leaf.training.augmentation`."""

    flip: str = "both"
    rotation: float = 0
    zoom: float = 0
    translation: float = 0
    contrast: float = 0
    rand_augment: float = 0
    mixup: float = 0
    cutmix: float = 0


@dataclass(frozen=True)
class Recipe:
    """The parameters of training. Names and meanings are those of params.yaml (`leaf.params`)."""

    seed: int = 42
    balance: str = "smote"
    frozen_epochs: int = 0
    frozen_learning_rate: float = 1e-3
    freeze_depth: int | str = 0
    batch_size: int = 32
    micro_batch: int = 0
    distribution: str = "none"
    epochs: int = 32
    patience: int = 16
    monitor: str = "validation_accuracy"
    optimizer: str = "adam"
    weight_decay: float = 0
    label_smoothing: float = 0
    weight_averaging: float = 0.99
    learning_rate: Rate = field(default_factory=Rate)
    augmentation: Changes = field(default_factory=Changes)

    @property
    def accumulation(self) -> int:
        """Micro-batches in one update."""
        return self.batch_size // self.micro_batch if self.micro_batch else 1

    @classmethod
    def from_params(cls, view: Any) -> "Recipe":
        """Take the fields of this class from the parameters of a stage; whatever else they hold is left alone."""
        return _taken(cls, view)

    def __post_init__(self) -> None:
        if self.micro_batch and self.batch_size % self.micro_batch:
            raise LeafError(f"micro_batch: {self.micro_batch} does not divide batch_size, {self.batch_size}")

    def phase(self, epoch: int) -> int:
        """Phase of an epoch, counted from 1: 1 while the whole backbone is frozen, then 2."""
        return 1 if epoch <= self.frozen_epochs else 2


def _taken(kind: Any, view: Any) -> Any:
    values = {}
    for item in fields(kind):
        value = getattr(view, item.name)
        default = getattr(kind(), item.name)
        values[item.name] = _taken(type(default), value) if is_dataclass(default) else value
    return kind(**values)
