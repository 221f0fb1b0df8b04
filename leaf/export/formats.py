"""Export a Keras model, with temperature scaling and softmax, to Keras, SavedModel, LiteRT or CodaLab."""

import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

import keras
import numpy as np

from leaf.errors import LeafError, printable
from leaf.export import replacing_folder
from leaf.ingest.decode import to_square
from leaf.models.onnx_inference import Metadata, metadata
from leaf.models.saving import load_model, save_model
from leaf.models.tta import tta_view
from leaf.serve.classifier import read_model_files
from leaf.store import replacing

CODALAB_SIZE = 96  # height and width of the CodaLab server's images
_FOLDER = "SubmissionModel"
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


def with_probabilities(model: keras.Model, temperature: float = 1.0) -> keras.Model:
    """Append temperature scaling (Guo 2017, arXiv 1706.04599) and softmax to a model that outputs logits (N, C).

    The new model shares the weights and outputs probabilities, float32 (N, C).
    """
    scaled = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(model.outputs[0])
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(scaled)
    return keras.Model(model.inputs[0], probabilities, name=model.name)


def write_savedmodel(model: keras.Model, _: Metadata, path: str | Path) -> None:
    """Write `model` to the folder `path` with the signature `serve`, which accepts any number of images."""
    with replacing_folder(path, "saved_model.pb") as partial:
        model.export(partial, format="tf_saved_model", verbose=False)


def write_litert(model: keras.Model, metadata: Metadata, path: str | Path) -> None:
    """Write `model` to `path` as a LiteRT file (`.tflite`) with float32 weights.

    To predict several images at once, resize the input tensor. The file is also a zip archive, as in TensorFlow Lite
    Metadata: `labels.txt` lists the class names, and `metadata.json` contains `metadata`.
    """
    import tensorflow as tf

    # Direct conversion of the Keras model would lose constants that layers store as plain tensors.
    with tempfile.TemporaryDirectory() as folder:
        write_savedmodel(model, metadata, Path(folder) / "model")
        converted = tf.lite.TFLiteConverter.from_saved_model(str(Path(folder) / "model")).convert()
    with replacing(path) as partial:
        partial.write_bytes(converted)
        with zipfile.ZipFile(partial, "a") as archive:
            for name, text in {
                "labels.txt": "\n".join(map(printable, metadata["classes"])) + "\n",
                "metadata.json": json.dumps(metadata, ensure_ascii=False),
            }.items():
                archive.writestr(zipfile.ZipInfo(name), text)  # with the default date, 1980-01-01


def write_codalab(model: keras.Model, metadata: Metadata, path: Path) -> None:
    """Write the course's CodaLab bundle: `model.py` and a SavedModel, in a folder or a `.zip` file.

    Args:
        model: maps images, float32 (N, H, W, 3) in 0..255, to probabilities (N, 2). If H is not 96, the bundle resizes
            the server's images as `ingest` does.
        metadata: the second class is predicted at or above `threshold`, and `views` views are averaged.
        path: folder or `.zip` file to write.
    """
    if (classes := model.output_shape[-1]) != 2:
        raise LeafError(f"format: codalab requires two classes; this model has {classes}. Use another format.")
    if path.suffix == ".zip":
        with tempfile.TemporaryDirectory() as folder, replacing(path) as partial:
            _write_bundle(Path(folder), model, metadata["threshold"], metadata["views"])
            shutil.make_archive(str(partial.with_suffix("")), "zip", folder)
    else:
        with replacing_folder(path, "model.py") as partial:
            _write_bundle(partial, model, metadata["threshold"], metadata["views"])


def _write_bundle(folder: Path, model: keras.Model, threshold: float, views: int) -> None:
    values = {"threshold": repr(float(threshold)), "folder": _FOLDER, "side": CODALAB_SIZE, "batch": _BATCH // views}
    (folder / "model.py").write_text(_MODEL_PY.substitute(values), encoding="utf-8")
    size = model.inputs[0].shape[1]

    def serve(images: Any) -> Any:
        seen = keras.ops.concatenate([_view(_resize(images, size), size, number) for number in range(views)])
        probabilities = model(seen)
        return keras.ops.mean(keras.ops.reshape(probabilities, (views, -1, probabilities.shape[-1])), axis=0)

    archive = keras.export.ExportArchive()
    archive.track(model)
    shape = (None, CODALAB_SIZE, CODALAB_SIZE, 3)
    archive.add_endpoint("serve", serve, [keras.InputSpec(shape=shape, dtype="float32")])
    archive.write_out(folder / _FOLDER, verbose=False)


def _resize(images: Any, size: int) -> Any:
    """Resize the server's images (N, 96, 96, 3) as `ingest` does: apply a linear map per axis, round, and clip."""
    if size == CODALAB_SIZE:
        return images
    rows = np.full((CODALAB_SIZE,) * 3 + (3,), 100, np.float32)
    rows[np.arange(CODALAB_SIZE), np.arange(CODALAB_SIZE)] += 100  # in image k, only row k is brighter; no value clips
    linear = (to_square(rows, size)[:, :, 0, 0].T - 100) / 100
    return keras.ops.clip(keras.ops.round(_map_axes(images, linear, linear)), 0, 255)


def _view(images: Any, size: int, number: int) -> Any:
    """Apply `tta_view` with Keras operations: a linear map per axis."""
    rows = np.zeros((size, size, size, 1), np.float32)
    rows[np.arange(size), np.arange(size)] = 1  # in image k, only row k is bright
    by_row, by_column = (tta_view(each, number)[..., 0] for each in (rows, rows.swapaxes(1, 2)))
    if np.ptp(by_row, axis=2).any():  # true if the view transposes the image
        images = keras.ops.swapaxes(images, 1, 2)
        by_row, by_column = by_column, by_row
    return _map_axes(images, by_row[:, :, 0].T, by_column[:, 0].T)


def _map_axes(images: Any, rows: np.ndarray, columns: np.ndarray) -> Any:
    return keras.ops.einsum("ow,nhwc->nhoc", columns, keras.ops.einsum("oh,nhwc->nowc", rows, images))


class Format(NamedTuple):
    """An export format."""

    name: str  # default name of the file or folder next to the model
    suffixes: tuple[str, ...]  # accepted suffixes of the path; "" for a folder
    write: Callable[[keras.Model, Metadata, Path], None]  # called with a model that outputs probabilities


FORMATS = {
    "keras": Format("probabilities.keras", (".keras",), lambda model, _, path: save_model(model, path)),
    "savedmodel": Format("savedmodel", ("",), write_savedmodel),
    "litert": Format("model.tflite", (".tflite",), write_litert),
    "codalab": Format("codalab", ("", ".zip"), write_codalab),
}


def export(model: str | Path, form: str, to: Path | None = None) -> str:
    """Export a `.keras` file to a format that maps images, float32 (N, H, W, 3) in 0..255, to probabilities (N, C).

    Args:
        model: a file saved by `train`.
        form: a name in `FORMATS`.
        to: file or folder to write; default: next to the model.

    Returns:
        A message with the path, the classes, the decision rule and, if evaluation averages views, a note about that.

    Raises:
        LeafError: if the format is unknown, the path does not match it, or the model is missing or was changed.
    """
    if form not in FORMATS:
        raise LeafError(f"format: {form!r}; valid: web, {', '.join(FORMATS)}. For ONNX, use models/model.onnx.")
    chosen, model = FORMATS[form], Path(model)
    path = to or model.with_name(chosen.name)
    if path.suffix not in chosen.suffixes:
        expected = " or ".join(f"a {suffix} file" if suffix else "a folder" for suffix in chosen.suffixes)
        raise LeafError(f"{path}: {form} is written to {expected}. Change --to.")
    if path.resolve() == model.resolve():
        raise LeafError(f"{path}: would overwrite the model. Use another path.")
    if form != "keras" and keras.backend.backend() != "tensorflow":
        raise LeafError(
            f"KERAS_BACKEND: {keras.backend.backend()}; {form} requires tensorflow. Set KERAS_BACKEND=tensorflow."
        )
    beside = read_model_files(model)
    whole = with_probabilities(load_model(model, beside.sha256), beside.temperature)
    facts = vars(beside) | {"model_sha256": beside.sha256, "image_size": whole.input_shape[1]}
    chosen.write(whole, metadata(facts), path)
    rule = f"threshold {beside.threshold:g}" if len(beside.classes) == 2 else "prediction: the most probable class"
    lines = [f"{path}: outputs the probabilities of {', '.join(beside.classes)}; {rule}"]
    if beside.views > 1 and form != "codalab":
        lines.append(
            f"The exported model predicts from one view; evaluation averages {beside.views} views (test-time "
            "augmentation)."
        )
    return "\n".join(lines)
