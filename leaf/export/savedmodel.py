"""What only Keras on TensorFlow writes: a SavedModel, LiteRT, the bundle of the course's server."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any

import keras
import numpy as np

from leaf.errors import LeafError, printable
from leaf.ingest.decode import to_square
from leaf.models.onnx_export import Metadata
from leaf.models.tta import tta_view
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


SIDE = 96  # pixels of the server's images
FOLDER = "SubmissionModel"
_BATCH = 64  # images of the server at once, each view of one counted

_MODEL_PY = Template('''"""Healthy (0) or unhealthy (1) leaf; the preprocessing is inside the saved model."""

import os

import tensorflow as tf

THRESHOLD = $threshold  # probability of "unhealthy" from which it is predicted
BATCH = $batch


class model:
    def __init__(self, path):
        self.model = tf.saved_model.load(os.path.join(path, "$folder"))

    def predict(self, X):
        """X: float32 ($side x $side x 3 images, 0..255) -> int64 tensor of 0 and 1, one an image."""
        X = tf.convert_to_tensor(X, tf.float32)
        parts = [self.model.serve(X[start : start + BATCH]) for start in range(0, max(1, len(X)), BATCH)]
        return tf.cast(tf.concat(parts, axis=0)[:, 1] >= THRESHOLD, tf.int64)
''')


def write_codalab(model: keras.Model, threshold: float, path: Path, views: int = 1) -> None:
    """Write the bundle of the course's server to `path`: `model.py` and a SavedModel.

    A folder, or a `.zip` file ready to be submitted.

    Args:
        model: images, float32 (N, H, W, 3) in 0..255, to probabilities (N, 2). Where H is not 96, the bundle resizes
            the server's images as ingest does.
        threshold: probability of the second class from which it is predicted.
        path: where to.
        views: test-time augmentation: how many views of an image the bundle averages, as evaluation does.
    """
    classes = model.output_shape[-1]
    if classes != 2:
        raise LeafError(f"format: codalab is for two classes, not {classes}; valid: any other format")
    if path.suffix != ".zip":
        with replacing_folder(path, "model.py") as partial:
            _fill(partial, model, threshold, views)
        return
    if path.is_dir():
        raise LeafError(f"{path}: a folder; give a file's name")
    with tempfile.TemporaryDirectory() as folder, replacing(path) as partial:
        _fill(Path(folder), model, threshold, views)
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(Path(folder).rglob("*")):
                archive.write(file, file.relative_to(folder))


def _fill(folder: Path, model: keras.Model, threshold: float, views: int) -> None:
    values = {"threshold": repr(float(threshold)), "folder": FOLDER, "side": SIDE, "batch": _BATCH // views}
    (folder / "model.py").write_text(_MODEL_PY.substitute(values), encoding="utf-8")
    write(_from_side(model, views), folder / FOLDER)


def _from_side(model: keras.Model, views: int) -> keras.Model:
    """Put ingest's resizing before a model of another size, and the mean over views around it."""
    size = model.inputs[0].shape[1]
    if size == SIDE and views == 1:
        return model
    image = keras.Input((SIDE, SIDE, 3), name="image")
    resized = image if size == SIDE else _Resize(size, name="resize")(image)
    if views == 1:
        return keras.Model(image, model(resized))
    return keras.Model(image, _Mean(views, name="mean")(model(_Views(size, views, name="views")(resized))))


class _Resize(keras.layers.Layer):
    """Resize images as ingest does: along each side the same linear map, then whole numbers from 0 to 255."""

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.map = _linear_map(size)

    def call(self, images: Any) -> Any:
        wide = keras.ops.einsum("oh,nhwc->nowc", self.map, images)
        both = keras.ops.einsum("ow,nhwc->nhoc", self.map, wide)
        return keras.ops.clip(keras.ops.round(both), 0, 255)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], self.size, self.size, 3)


class _Views(keras.layers.Layer):
    """Give the views of each image, all of the first view, then all of the second, and so on."""

    def __init__(self, size: int, views: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.maps = [_view_map(size, number) for number in range(views)]
        self.views = views

    def call(self, images: Any) -> Any:
        seen = []
        for turned, rows, columns in self.maps:
            x = keras.ops.swapaxes(images, 1, 2) if turned else images
            seen.append(keras.ops.einsum("ow,nhwc->nhoc", columns, keras.ops.einsum("oh,nhwc->nowc", rows, x)))
        return keras.ops.concatenate(seen)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (None, *input_shape[1:])


class _Mean(keras.layers.Layer):
    """Average the answers to the views of each image: (views · N, C) to (N, C)."""

    def __init__(self, views: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.views = views

    def call(self, answers: Any) -> Any:
        return keras.ops.mean(keras.ops.reshape(answers, (self.views, -1, answers.shape[-1])), axis=0)


def _view_map(size: int, number: int) -> tuple[bool, np.ndarray, np.ndarray]:
    """Read off a view: whether rows and columns change places first, then each one's map, float32 (size, size)."""
    rows = np.zeros((size, size, size, 1), np.float32)
    rows[np.arange(size), np.arange(size)] = 1  # image k has its row k bright
    by_row, by_column = (tta_view(each, number)[..., 0] for each in (rows, rows.swapaxes(1, 2)))
    if turned := bool(np.ptp(by_row, axis=2).any()):
        by_row, by_column = by_column, by_row
    return turned, by_row[:, :, 0].T, by_column[:, 0].T


def _linear_map(size: int) -> np.ndarray:
    """Read off what `to_square` makes of one bright row after the other: float32 (size, SIDE)."""
    rows = np.full((SIDE, SIDE, SIDE, 3), 100, np.float32)
    rows[np.arange(SIDE), np.arange(SIDE)] += 100  # image k has its row k brighter; far from 0 and 255, no clipping
    return (to_square(rows, size)[:, :, 0, 0].T - 100) / 100
