"""Summarize a model: its parts, their output shapes and their parameter counts."""

from dataclasses import dataclass
from math import prod

import keras

from leaf.models.autoencoder import is_detector_model
from leaf.models.freezing import backbone_operations

_DETECTOR_LAYERS = ("dropout", "logits")


@dataclass(frozen=True)
class Row:
    """A part of a model; `shape` is its output shape for one image."""

    name: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Summary:
    """A model's parts in order, with its parameter and operation counts.

    For a classifier, `operations` counts the backbone's operations, as `freeze_depth` does; for a detector, all.
    """

    rows: list[Row]
    total: int
    trainable: int
    non_trainable: int
    operations: int

    def __str__(self) -> str:
        cells = [(row.name, " × ".join(map(str, row.shape)), f"{row.parameters:,}") for row in self.rows]
        cells = [("layer", "output", "parameters"), *cells]
        first, second, third = (max(len(row[column]) for row in cells) for column in range(3))
        lines = [f"{a:<{first}}  {b:<{second}}  {c:>{third}}" for a, b, c in cells]
        rule = "─" * len(lines[0])
        totals = {"total": self.total, "trainable": self.trainable, "non-trainable": self.non_trainable}
        width = first + second + third + 4
        ends = [f"{name}{value:>{width - len(name)},}" for name, value in totals.items()]
        return "\n".join([lines[0], rule, *lines[1:], rule, *ends, f"operations: {self.operations}"])


def summarize_model(model: keras.Model) -> Summary:
    """Summarize a classifier or detector.

    The rows of a classifier are the backbone, batch_normalization, dropout and dense; dropout on the input comes first.
    The rows of a detector are dropout, its submodels and logits. As in Keras, moving statistics are non-trainable.
    """
    if is_detector_model(model):
        parts = [layer for layer in model.layers if isinstance(layer, keras.Model) or layer.name in _DETECTOR_LAYERS]
        return _totals(model, [_row(part) for part in parts], len(model.operations))
    backbone = backbone_operations(model)
    around = [layer for layer in model.layers if layer.name in ("dropout", "batch_normalization", "dense")]
    place = next(number for number, layer in enumerate(around) if layer.name == "batch_normalization")
    inside = Row(model.name, tuple(around[place].input.shape[1:]), sum(map(_parameters, backbone)))
    rows = [_row(layer) for layer in around]
    return _totals(model, [*rows[:place], inside, *rows[place:]], len(backbone))


def _totals(model: keras.Model, rows: list[Row], operations: int) -> Summary:
    trainable, non_trainable = _size(model.trainable_weights), _size(model.non_trainable_weights)
    return Summary(rows, trainable + non_trainable, trainable, non_trainable, operations)


def _row(layer: keras.layers.Layer) -> Row:
    return Row(layer.name, tuple(layer.output.shape[1:]), _parameters(layer))


def _parameters(operation: keras.Operation) -> int:
    return _size(operation.weights) if isinstance(operation, keras.layers.Layer) else 0


def _size(weights: list) -> int:
    return sum(prod(weight.shape) for weight in weights)
