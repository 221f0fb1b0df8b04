"""Export formats that require TensorFlow: SavedModel, LiteRT and the CodaLab bundle."""

import json
import tempfile
import zipfile
from pathlib import Path
from string import Template
from typing import Any

import keras
import numpy as np

from leaf.errors import LeafError, printable
from leaf.export import replacing_folder
from leaf.ingest.decode import to_square
from leaf.models.onnx_inference import Metadata
from leaf.models.tta import tta_view
from leaf.store import replacing


def write(model: keras.Model, path: str | Path) -> None:
    """Write `model` to the folder `path` with the signature `serve`, for any number of images."""
    with replacing_folder(path, "saved_model.pb") as partial:
        model.export(partial, format="tf_saved_model", verbose=False)


def write_litert(model: keras.Model, metadata: Metadata, path: str | Path) -> None:
    """Write `model` to `path` as a LiteRT file (`.tflite`) with float32 weights, for phones and small boards.

    Resize the input tensor for more than one image. The file is also a zip archive, as in TensorFlow's model metadata:
    `labels.txt` lists the class names, and `metadata.json` contains `metadata`.
    """
    import tensorflow as tf

    # Converting the Keras model directly would lose constants that a layer holds as plain tensors.
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


SIDE = 96  # side length of the server's images in pixels
FOLDER = "SubmissionModel"
_BATCH = 64  # images per batch; each view counts as an image

_MODEL_PY = Template('''"""Classify leaves as healthy (0) or unhealthy (1)."""

import os

import tensorflow as tf

THRESHOLD = $threshold  # predict "unhealthy" at or above this probability
BATCH = $batch


class model:
    def __init__(self, path):
        self.model = tf.saved_model.load(os.path.join(path, "$folder"))

    def predict(self, X):
        """Return an int64 tensor (N,) of 0 and 1 for float32 images (N, $side, $side, 3) in 0..255."""
        X = tf.convert_to_tensor(X, tf.float32)
        parts = [self.model.serve(X[start : start + BATCH]) for start in range(0, max(1, len(X)), BATCH)]
        return tf.cast(tf.concat(parts, axis=0)[:, 1] >= THRESHOLD, tf.int64)
''')


def write_codalab(model: keras.Model, threshold: float, path: Path, views: int = 1) -> None:
    """Write the course's CodaLab bundle: `model.py` and a SavedModel, in a folder or a `.zip` file.

    Args:
        model: maps images, float32 (N, H, W, 3) in 0..255, to probabilities (N, 2). If H is not 96, the bundle resizes
            the server's images as `ingest` does.
        threshold: the second class is predicted at or above this probability.
        path: folder or `.zip` file to write.
        views: number of views that the bundle averages, as evaluation does.
    """
    classes = model.output_shape[-1]
    if classes != 2:
        raise LeafError(f"format: codalab is for two classes, not {classes}; valid: any other format")
    if path.suffix != ".zip":
        with replacing_folder(path, "model.py") as partial:
            _fill(partial, model, threshold, views)
        return
    if path.is_dir():
        raise LeafError(f"{path}: is a folder. Give a file name.")
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
    """Prepend the resizing of `ingest` if the model has another input size, and average over views."""
    size = model.inputs[0].shape[1]
    if size == SIDE and views == 1:
        return model
    image = keras.Input((SIDE, SIDE, 3), name="image")
    resized = image if size == SIDE else _Resize(size, name="resize")(image)
    if views == 1:
        return keras.Model(image, model(resized))
    return keras.Model(image, _Mean(views, name="mean")(model(_Views(size, views, name="views")(resized))))


class _Resize(keras.layers.Layer):
    """Resize images as `ingest` does: apply one linear map per axis, then round to 0..255."""

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
    """Stack the views of all images: the first view of every image, then the second view of every image, and so on."""

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
    """Average over views, from (views · N, C) to (N, C)."""

    def __init__(self, views: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.views = views

    def call(self, outputs: Any) -> Any:
        return keras.ops.mean(keras.ops.reshape(outputs, (self.views, -1, outputs.shape[-1])), axis=0)


def _view_map(size: int, number: int) -> tuple[bool, np.ndarray, np.ndarray]:
    """Return whether a view transposes the image, and its linear maps for rows and columns, float32 (size, size)."""
    rows = np.zeros((size, size, size, 1), np.float32)
    rows[np.arange(size), np.arange(size)] = 1  # row k of image k is bright
    by_row, by_column = (tta_view(each, number)[..., 0] for each in (rows, rows.swapaxes(1, 2)))
    if turned := bool(np.ptp(by_row, axis=2).any()):
        by_row, by_column = by_column, by_row
    return turned, by_row[:, :, 0].T, by_column[:, 0].T


def _linear_map(size: int) -> np.ndarray:
    """Return the linear map of `to_square` along one axis, float32 (size, SIDE)."""
    rows = np.full((SIDE, SIDE, SIDE, 3), 100, np.float32)
    rows[np.arange(SIDE), np.arange(SIDE)] += 100  # row k of image k is brighter; far from 0 and 255, no clipping
    return (to_square(rows, size)[:, :, 0, 0].T - 100) / 100
