"""Summarize a model: its parts, their output shapes and their parameter counts."""

from dataclasses import dataclass
from math import prod

import keras

from leaf.models.autoencoder import is_detector_model
from leaf.models.freezing import backbone_operations


@dataclass(frozen=True)
class Row:
    """A part of a model; `shape` is its output shape for one image."""

    name: str
    shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Summary:
    """A model's parts in order, with its parameter and operation counts.

    For a classifier, `operations` counts only the backbone's operations, as `freeze_depth` does. For a detector, it
    counts all operations.
    """

    rows: list[Row]
    total: int
    trainable: int
    non_trainable: int
    operations: int

    def __str__(self) -> str:
        cells = [("layer", "output", "parameters")]
        cells += [(row.name, " × ".join(map(str, row.shape)), f"{row.parameters:,}") for row in self.rows]
        totals = {"total": self.total, "trainable": self.trainable, "non-trainable": self.non_trainable}
        cells += [(name, "", f"{value:,}") for name, value in {**totals, "operations": self.operations}.items()]
        name, shape, number = (max(map(len, column)) for column in zip(*cells, strict=True))
        return "\n".join(f"{a:<{name}}  {b:<{shape}}  {c:>{number}}" for a, b, c in cells)


def summarize_model(model: keras.Model) -> Summary:
    """Summarize a classifier or detector.

    The rows of a classifier are the backbone, batch_normalization, dropout and dense. Dropout comes first if it is
    applied to the input. The rows of a detector are dropout, its submodels and logits. As in Keras, moving statistics
    are non-trainable.
    """
    detector, operations = is_detector_model(model), model.operations
    names = ("dropout", "batch_normalization", "dense", "logits")
    layers = [layer for layer in model.layers if layer.name in names or (detector and isinstance(layer, keras.Model))]
    rows = [Row(layer.name, tuple(layer.output.shape[1:]), layer.count_params()) for layer in layers]
    if not detector:
        operations = backbone_operations(model)
        place = [row.name for row in rows].index("batch_normalization")
        backbone = model.count_params() - sum(row.parameters for row in rows)
        rows.insert(place, Row(model.name, rows[place].shape, backbone))
    total, trainable = model.count_params(), sum(prod(weight.shape) for weight in model.trainable_weights)
    return Summary(rows, total, trainable, total - trainable, len(operations))
