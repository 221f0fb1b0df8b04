"""Write a network as TensorFlow's SavedModel, a folder that runs without Keras and this package, or as LiteRT."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from leaf.errors import LeafError, printable
from leaf.exporting.onnx import Metadata
from leaf.store import replacing


def write(model: keras.Model, path: str | Path) -> None:
    """Write `model` to the folder `path`: signature `serve`, any number of images."""
    with replacing_folder(path, "saved_model.pb") as partial:
        model.export(partial, format="tf_saved_model", verbose=False)


def write_litert(model: keras.Model, metadata: Metadata, path: str | Path) -> None:
    """Write `model` to `path` as a LiteRT file (`.tflite`), for phones and small boards, weights in float32.

    For more images than one, resize the input tensor. The file is a zip archive too, as TensorFlow's model metadata has
    it: `labels.txt` holds the class names, one a line, `metadata.json` all of `metadata`.
    """
    import tensorflow as tf

    # From the Keras model itself the converter loses constants that a layer holds as plain tensors; by way of a
    # SavedModel it keeps them.
    with tempfile.TemporaryDirectory() as folder:
        write(model, Path(folder) / "model")
        converted = tf.lite.TFLiteConverter.from_saved_model(str(Path(folder) / "model")).convert()
    with replacing(path) as partial:
        partial.write_bytes(converted)
        with zipfile.ZipFile(partial, "a") as archive:
            for name, text in {
                "labels.txt": "\n".join(map(printable, metadata["classes"])) + "\n",
                "metadata.json": json.dumps(metadata, ensure_ascii=False),
            }.items():
                archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text)


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
