"""Predictions of a network: probabilities with test-time augmentation, pooled features."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from leaf.errors import LeafError
from leaf.networks.detector import is_detector_model

# Keras compiles a model once for each object, so a part of a network is made once and kept as long as the network.
_parts: weakref.WeakKeyDictionary[keras.Model, dict[str, keras.Model]] = weakref.WeakKeyDictionary()


def probabilities(
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
        raise LeafError(
            "the network gives NaN or infinite logits; its weights or its temperature are damaged, train it again"
        )
    if scaled.shape[1] == 2:  # exact at both ends, and the two add up to 1
        second = (1 + np.tanh((scaled[:, 1] - scaled[:, 0]) / 2)) / 2
        return np.stack([1 - second, second], axis=1)
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def features(model: keras.Model, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Give the pooled features of each image, float32 (N, D): the input of the head, or a detector's code."""
    inner = submodel(model, "features", lambda: pooled(model))
    parts = list(predict_batches(inner, _batches(images, batch_size)))
    return np.concatenate(parts) if parts else np.zeros((0, inner.output_shape[-1]), np.float32)


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


MAX_VIEWS = 16
_CROPPED = 7 / 8  # side of a crop, of the whole side


def tta_view(images: np.ndarray, number: int) -> np.ndarray:
    """Give view `number` of square images for test-time augmentation.

    0 is the image; 1 to 7 its mirror images and quarter turns; 8 to 12 crops of 7/8 of the side (the middle, the
    four corners), enlarged to the whole; 13 to 15 the first crops mirrored.

    Args:
        images: float32 (N, S, S, 3).
        number: 0 to 15.

    Returns:
        float32 (N, S, S, 3).
    """
    if number < len(_TURNS):
        return np.ascontiguousarray(_TURNS[number](images))
    number -= len(_TURNS)
    corner = number % len(_CORNERS)
    cropped = _crop(images, *_CORNERS[corner])
    return np.ascontiguousarray(cropped[:, :, ::-1]) if number >= len(_CORNERS) else cropped


def _crop(images: np.ndarray, vertical: float, horizontal: float) -> np.ndarray:
    size = images.shape[1]
    side = max(1, round(size * _CROPPED))
    top, left = round((size - side) * vertical), round((size - side) * horizontal)
    part = images[:, top : top + side, left : left + side]
    return keras.ops.convert_to_numpy(keras.ops.image.resize(part, (size, size)))


_TURNS: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda x: x,
    lambda x: x[:, :, ::-1],
    lambda x: x[:, ::-1],
    lambda x: x[:, ::-1, ::-1],
    lambda x: x.transpose(0, 2, 1, 3),
    lambda x: x.transpose(0, 2, 1, 3)[:, :, ::-1],
    lambda x: x.transpose(0, 2, 1, 3)[:, ::-1],
    lambda x: x.transpose(0, 2, 1, 3)[:, ::-1, ::-1],
]
_CORNERS = [(0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)]
