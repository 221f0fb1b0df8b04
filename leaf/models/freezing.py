"""Freeze the first operations of a backbone."""

import keras

# Names of a classifier's operations that are not part of its backbone.
_AROUND = ("dropout", "preprocessing", "batch_normalization", "dense")


def backbone_operations(model: keras.Model) -> list[keras.Operation]:
    """Return the backbone's operations, starting with its input, in the order of keras.applications.

    Adding two tensors creates a layer in Keras 2 but an operation in Keras 3. Counting operations therefore reproduces
    the freeze depths of models trained with Keras 2.
    """
    return [operation for operation in model.operations if operation.name not in _AROUND]


def freeze_backbone(model: keras.Model, depth: int | str, normalization: bool = False) -> None:
    """Freeze the first `depth` backbone operations, or `all` of them, and make the others trainable.

    A frozen BatchNormalization runs in inference mode. With `normalization`, every BatchNormalization in the backbone
    stays frozen, so its statistics do not jump when the surrounding layers are unfrozen.
    """
    operations = backbone_operations(model)
    count = len(operations) if depth == "all" else int(depth)
    for number, operation in enumerate(operations):
        if isinstance(operation, keras.layers.Layer):
            kept = normalization and isinstance(operation, keras.layers.BatchNormalization)
            operation.trainable = number >= count and not kept
