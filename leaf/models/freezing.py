"""Freeze the first operations of a backbone."""

import keras

# Operations of a classifier around its backbone.
_AROUND = ("dropout", "preprocessing", "batch_normalization", "dense")


def backbone_operations(model: keras.Model) -> list[keras.Operation]:
    """Return the backbone's operations in order, starting with its input, as in the keras.applications model.

    Keras 3 has an operation, not a layer, where Keras 2 had a layer for the sum of two tensors. Freeze depths from
    reports made with Keras 2 therefore count operations.
    """
    return [operation for operation in model.operations if operation.name not in _AROUND]


def freeze_backbone(model: keras.Model, depth: int | str, normalization: bool = False) -> None:
    """Freeze the first `depth` backbone operations, or all of them for `all`, and make the others trainable.

    A frozen BatchNormalization runs in inference mode. With `normalization`, every BatchNormalization of the backbone
    is frozen, so that its statistics do not jump when its layer is unfrozen.
    """
    operations = backbone_operations(model)
    count = len(operations) if depth == "all" else int(depth)
    for number, operation in enumerate(operations):
        if isinstance(operation, keras.layers.Layer):
            kept = normalization and isinstance(operation, keras.layers.BatchNormalization)
            operation.trainable = number >= count and not kept
