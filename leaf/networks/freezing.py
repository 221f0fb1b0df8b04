"""The backbone inside a classifier, and freezing its first operations."""

import keras

from leaf.errors import LeafError

# A classifier's own operations around the backbone. Those of keras.applications count their input as the first.
_AROUND = ("dropout", "preprocessing", "batch_normalization", "dense")


def backbone_operations(model: keras.Model) -> list[keras.Operation]:
    """Give the backbone's operations in order, its input first, as keras.applications' network alone would have them.

    Operations, not layers: Keras 3 counts an addition of two tensors as an operation that is no layer, where Keras 2
    counted a layer; so the depths that reports of Keras 2 give hold for operations.
    """
    return [operation for operation in model.operations if operation.name not in _AROUND]


def freeze(model: keras.Model, depth: int | str, normalization: bool = False) -> None:
    """Freeze the first `depth` operations of the backbone and let all others learn; `all` freezes every one.

    A frozen BatchNormalization runs in inference mode: its moving statistics stay. `normalization` freezes those of
    the whole backbone: a network whose statistics are of other images would otherwise jump when it thaws.

    Raises:
        LeafError: where the backbone has fewer operations.
    """
    operations = backbone_operations(model)
    count = len(operations) if depth == "all" else depth
    if not isinstance(count, int) or not 0 <= count <= len(operations):
        raise LeafError(f"freeze_depth: {depth}; valid: 0 to {len(operations)} for {model.name}, or all")
    for number, operation in enumerate(operations):
        if isinstance(operation, keras.layers.Layer):
            kept = normalization and isinstance(operation, keras.layers.BatchNormalization)
            operation.trainable = number >= count and not kept
