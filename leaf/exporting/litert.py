"""Write a network as a LiteRT file (`.tflite`), for phones and small boards."""

import tempfile
from pathlib import Path

import keras

from leaf.exporting import savedmodel
from leaf.store import replacing


def write(model: keras.Model, path: str | Path) -> None:
    """Write `model` to `path` for LiteRT, weights in float32; resize the input tensor for more images than one."""
    import tensorflow as tf

    # From the Keras model itself the converter loses constants that a layer holds as plain tensors; by way of a
    # SavedModel it keeps them.
    with tempfile.TemporaryDirectory() as folder:
        savedmodel.write(model, Path(folder) / "model")
        converted = tf.lite.TFLiteConverter.from_saved_model(str(Path(folder) / "model")).convert()
    with replacing(path) as partial:
        partial.write_bytes(converted)
