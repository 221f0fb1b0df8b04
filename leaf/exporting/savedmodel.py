"""Write a network as TensorFlow's SavedModel, a folder that runs without Keras and this package, or as LiteRT."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from leaf.errors import LeafError
from leaf.store import replacing


def write(model: keras.Model, path: str | Path) -> None:
    """Write `model` to the folder `path`: signature `serve`, any number of images."""
    with replacing_folder(path, "saved_model.pb") as partial:
        model.export(partial, format="tf_saved_model", verbose=False)


def write_litert(model: keras.Model, path: str | Path) -> None:
    """Write `model` to `path` as a LiteRT file (`.tflite`), for phones and small boards, weights in float32.

    For more images than one, resize the input tensor.
    """
    import tensorflow as tf

    # From the Keras model itself the converter loses constants that a layer holds as plain tensors; by way of a
    # SavedModel it keeps them.
    with tempfile.TemporaryDirectory() as folder:
        write(model, Path(folder) / "model")
        converted = tf.lite.TFLiteConverter.from_saved_model(str(Path(folder) / "model")).convert()
    with replacing(path) as partial:
        partial.write_bytes(converted)


@contextmanager
def replacing_folder(path: str | Path, mark: str) -> Iterator[Path]:
    """Give a temporary folder beside `path`, which takes the name `path` on success.

    Raises:
        LeafError: where `path` exists and is no earlier export, that is a folder with a file `mark`.
    """
    path = Path(path)
    if path.exists() and not (path / mark).is_file():
        raise LeafError(f"{path}: exists and is no earlier export; give another path or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
