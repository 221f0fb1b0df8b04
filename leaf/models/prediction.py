"""Predictions of a network: probabilities with test-time augmentation, pooled features, heat maps."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from leaf.errors import LeafError
from leaf.models import gradcam
from leaf.models.autoencoder import is_detector_model
from leaf.models.freezing import backbone_operations
from leaf.models.onnx_inference import NOT_FINITE, Head
from leaf.models.tta import tta_view

# Keras compiles a model once for each object, so a part of a network is made once and kept as long as the network.
_parts: weakref.WeakKeyDictionary[keras.Model, dict[str, keras.Model]] = weakref.WeakKeyDictionary()


def predict_probabilities(
    model: keras.Model, images: np.ndarray, batch_size: int = 256, views: int = 1, temperature: float = 1.0
) -> np.ndarray:
    """Predict the probability of each class for each image.

    Args:
        model: from `build` or `load`.
        images: (N, H, W, 3), uint8 or float, 0..255; a memory map is read batch by batch.
        batch_size: images at once.
        views: test-time augmentation: how many views (`tta_view`) of each image are averaged, 1 to 16.
        temperature: the logits are divided by it.

    Returns:
        float64 (N, C), 0 to 1.
    """
    total = np.zeros((len(images), model.output_shape[-1]))
    for number in range(views):
        logits = predict_batches(model, (tta_view(batch, number) for batch in _batches(images, batch_size)))
        total += softmax(np.concatenate([total[:0], *logits]), temperature)
    return total / views


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """The softmax of logits (N, C) / `temperature`, float64; no finite logit makes it overflow.

    Raises LeafError where a logit is NaN or infinite: no answer is better than a label that such numbers give.
    """
    scaled = logits.astype(np.float64) / temperature
    if not np.isfinite(scaled).all():
        raise LeafError(NOT_FINITE)
    if scaled.shape[1] == 2:  # exact at both ends, and the two add up to 1
        second = (1 + np.tanh((scaled[:, 1] - scaled[:, 0]) / 2)) / 2
        return np.stack([1 - second, second], axis=1)
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def extract_features(model: keras.Model, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Give the pooled features of each image, float32 (N, D): the input of the head, or a detector's code."""
    inner = submodel(model, "features", lambda: pooled(model))
    parts = list(predict_batches(inner, _batches(images, batch_size)))
    return np.concatenate(parts) if parts else np.zeros((0, inner.output_shape[-1]), np.float32)


def compute_heatmaps(
    model: keras.Model, images: np.ndarray, shown: np.ndarray | None = None, batch_size: int = 64
) -> np.ndarray:
    """Show where `model` saw a class (`leaf.models.gradcam.heatmaps`).

    Args:
        model: from `build` or `load`. Of a detector the map is its reconstruction error.
        images: (N, H, W, 3), uint8 or float, 0..255.
        shown: the label of each image's class, int (N,); the likeliest unless given.
        batch_size: images at once.

    Returns:
        float32 (N, H, W), 0 to 1.
    """
    network, maps = KerasNetwork(model), [np.zeros((0, *images.shape[1:3]), np.float32)]
    for number, batch in enumerate(_batches(images, batch_size)):
        start = number * batch_size
        labels = None if shown is None else shown[start : start + batch_size]
        maps.append(gradcam.heatmaps(network, batch, labels))
    return np.concatenate(maps)


class KerasNetwork:
    """Run a Keras model as a `leaf.models.onnx_inference.Network`; the logits are divided by `temperature`.

    Batches are filled up to a power of two, so that few shapes are compiled.
    """

    def __init__(self, model: keras.Model, temperature: float = 1.0) -> None:
        self.image_size = int(model.inputs[0].shape[1])
        self.head = head(model)
        self._temperature = temperature
        self._model = submodel(model, "answers", lambda: [model.output, pooled(model), _last_layer(model)])
        self._errors = model.get_layer("score").errors if is_detector_model(model) else None

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, features, _ = self._run(images)
        return softmax(logits, self._temperature), features

    def last_map(self, images: np.ndarray) -> np.ndarray:
        last = np.asarray(self._run(images)[2], np.float32)
        return keras.ops.convert_to_numpy(self._errors(last))[..., None] if self._errors else last

    def _run(self, images: np.ndarray) -> Any:
        return predict_padded(self._model, images, 1 << (len(images) - 1).bit_length())


def head(model: keras.Model) -> Head:
    """Read off what leads from the average of the last map to the logits."""
    if is_detector_model(model):  # its map is the error itself
        return Head(np.ones((2, 1), np.float32), None, int(model.inputs[0].shape[1]))
    normalization = model.get_layer("batch_normalization")
    gamma, _, _, variance = (keras.ops.convert_to_numpy(weight) for weight in normalization.weights)
    kernel = keras.ops.convert_to_numpy(model.get_layer("dense").kernel)
    others = (kernel.sum(axis=1, keepdims=True) - kernel) / (kernel.shape[1] - 1)
    slopes = gamma / np.sqrt(variance + normalization.epsilon) * (kernel - others).T
    side, last = int(_last_layer(model).shape[1]), backbone_operations(model)[-1]
    if isinstance(last, keras.layers.LayerNormalization):
        return Head(slopes * keras.ops.convert_to_numpy(last.gamma), last.epsilon, side)
    return Head(slopes, None, side)


def pool(model: keras.Model) -> keras.layers.Layer:
    """The average pooling behind the last map of a classifier."""
    operations = reversed(backbone_operations(model))
    return next(each for each in operations if isinstance(each, keras.layers.GlobalAveragePooling2D))


def _last_layer(model: keras.Model) -> Any:
    return model.get_layer("residual").output if is_detector_model(model) else pool(model).input


def pooled(model: keras.Model) -> Any:
    """Give the symbolic output (N, D) that `features` predicts, to join it with other outputs in one model."""
    if not is_detector_model(model):
        return model.get_layer("batch_normalization").input
    code = model.get_layer("latent").output
    return keras.ops.mean(code, axis=(1, 2)) if len(code.shape) == 4 else code


def submodel(model: keras.Model, name: str, outputs: Callable[[], Any]) -> keras.Model:
    """Give the part of `model` from its input to `outputs()`, the same object for the same `name`."""
    parts = _parts.setdefault(model, {})
    if name not in parts:
        parts[name] = keras.Model(model.input, outputs())
    return parts[name]


def predict_batches(model: keras.Model, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Predict each batch; a shorter last one is filled up, so that no second shape is compiled."""
    size = 0
    for batch in batches:
        size = max(size, len(batch))
        yield predict_padded(model, batch, size)


def predict_padded(model: keras.Model, images: np.ndarray, size: int) -> Any:
    """Predict images (N, H, W, 3) as a batch of `size`, filled up with copies of the last one.

    Returns:
        The model's output, or its outputs, each with N rows.
    """
    missing = size - len(images)
    padded = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
    outputs = model.predict_on_batch(padded)
    return keras.tree.map_structure(lambda output: np.asarray(output)[: len(images)], outputs)


def _batches(images: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(images), batch_size):
        yield np.asarray(images[start : start + batch_size], np.float32)
