"""Inference with Keras: probabilities with test-time augmentation, pooled features and heatmaps."""

import json
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import keras
import numpy as np
import xxhash

from leaf.models import feature_cache, gradcam
from leaf.models.autoencoder import is_detector_model
from leaf.models.build import build_model
from leaf.models.freezing import backbone_operations
from leaf.models.onnx_inference import Head, softmax
from leaf.models.probe_files import LinearHead
from leaf.models.tta import tta_view

# Keras compiles each model object once, so submodels are cached for the lifetime of their model.
_submodels: weakref.WeakKeyDictionary[keras.Model, dict[str, keras.Model]] = weakref.WeakKeyDictionary()


def predict_probabilities(
    model: keras.Model, images: np.ndarray, batch_size: int = 256, views: int = 1, temperature: float = 1.0
) -> np.ndarray:
    """Predict the probability of each class for each image.

    Args:
        model: from `build_model` or `load_model`.
        images: (N, H, W, 3), uint8 or float, 0..255; a memory map is read batch by batch.
        batch_size: images per batch.
        views: number of views (`tta_view`) to average, 1 to 16.
        temperature: divides the logits.

    Returns:
        Probabilities, float64 (N, C).
    """
    total = np.zeros((len(images), model.output_shape[-1]))
    for number in range(views):
        logits = predict_batches(model, (tta_view(batch, number) for batch in _batches(images, batch_size)))
        total += softmax(np.concatenate([total[:0], *logits]), temperature)
    return total / views


def extract_features(model: keras.Model, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
    """Return pooled features, float32 (N, D): the input of a classifier's head, or a detector's latent code."""
    inner = _feature_model(model)
    features = predict_batches(inner, _batches(images, batch_size))
    return np.concatenate([np.zeros((0, inner.output_shape[-1]), np.float32), *features])


def cached_features(model: keras.Model, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the pooled features of `rows` of `images`, float32 (len(rows), D); compute only those not cached.

    The cache key ignores the head. See `feature_cache.cached` for `images` and `rows`.
    """
    inner = _feature_model(model)
    predict = partial(predict_padded, inner, size=feature_cache.BATCH)
    return feature_cache.cached(backbone_key(model), inner.output_shape[-1], images, rows, predict)


def frozen_features(
    images: np.ndarray, rows: np.ndarray, backbone: str, weights: str, weights_sha256: str
) -> np.ndarray:
    """Return the `cached_features` of a backbone with pretrained weights; see `build_model` for its arguments."""
    model = build_model(backbone, images.shape[1], weights=weights, weights_sha256=weights_sha256)
    return cached_features(model, images, rows)


def head_on_features(model: keras.Model) -> keras.Model | None:
    """Return the head of `model` as a model that maps features (N, D) to logits and shares the variables of `model`.

    Return None if the backbone has dropout, because its features then vary between steps even when frozen.
    """
    if any(isinstance(each, keras.layers.Dropout) and each.rate for each in _feature_model(model).operations):
        return None
    return keras.Model(pooled(model), model.output)


def backbone_key(model: keras.Model) -> str:
    """Return a hash (32 hex digits) of the backbone's operations and weights, the Keras version, backend and devices.

    Settings that affect only training are ignored.
    """
    inner = _feature_model(model)
    made_by = (keras.__version__, keras.backend.backend(), keras.distribution.list_devices())
    layers = _without_training_keys(json.loads(inner.to_json())["config"]["layers"])
    digest = xxhash.xxh3_128(json.dumps([made_by, layers], sort_keys=True).encode())
    for weight in inner.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).data)
    return digest.hexdigest()


_TRAINING_KEYS = ("trainable", "rate", "seed", "build_config")


def _without_training_keys(config: Any) -> Any:
    if isinstance(config, dict):
        kept = {key: value for key, value in config.items() if key not in _TRAINING_KEYS and "initializer" not in key}
        return {key: _without_training_keys(value) for key, value in kept.items()}
    return [_without_training_keys(each) for each in config] if isinstance(config, list) else config


def compute_heatmaps(model: keras.Model, images: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
    """Compute Grad-CAM heatmaps of images (N, H, W, 3), uint8 or float; see `leaf.models.gradcam.heatmaps`."""
    network, maps, size = KerasNetwork(model), [np.zeros((0, *images.shape[1:3]), np.float32)], 64
    for start, batch in zip(range(0, len(images), size), _batches(images, size), strict=True):
        maps.append(gradcam.heatmaps(network, batch, None if labels is None else labels[start : start + size]))
    return np.concatenate(maps)


class KerasNetwork:
    """A `leaf.models.onnx_inference.Network` that runs a Keras model.

    Batches are padded to a power of two, so that few shapes are compiled.
    """

    def __init__(self, model: keras.Model, temperature: float = 1.0) -> None:
        self.image_size = int(model.inputs[0].shape[1])
        self.head = head(model)
        self._temperature = temperature
        self._model = _submodel(model, "outputs", lambda: [model.output, pooled(model), _last_map(model)])
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
    """Return a model's `Head`."""
    if is_detector_model(model):  # the heatmap of a detector is its reconstruction error
        return Head(np.ones((2, 1), np.float32), None, int(model.inputs[0].shape[1]))
    last = backbone_operations(model)[-1]
    epsilon = last.epsilon if isinstance(last, keras.layers.LayerNormalization) else None
    return Head(linear_head(model).slopes(slopes_scale(model)), epsilon, int(_last_map(model).shape[1]))


def slopes_scale(model: keras.Model) -> np.ndarray | None:
    """Return the scale (K,) of the LayerNormalization between the pooling and the head, or None if there is none."""
    last = backbone_operations(model)[-1]
    return keras.ops.convert_to_numpy(last.gamma) if isinstance(last, keras.layers.LayerNormalization) else None


def linear_head(model: keras.Model) -> LinearHead:
    """Return the weights of a classifier's head."""
    normalization, dense = (model.get_layer(name).get_weights() for name in ("batch_normalization", "dense"))
    return LinearHead(tuple(normalization), *dense)


def probe_facts(model: keras.Model) -> dict[str, Any]:
    """Return the properties of a probe's backbone that `ProbeFiles` requires."""
    scale = slopes_scale(model)
    return {
        "backbone_key": backbone_key(model),
        "backbone_parameters": model.count_params() - linear_head(model).parameters[1],
        "features": pooled(model).shape[-1],
        "slopes_scale": None if scale is None else scale.tolist(),
    }


def average_pooling(model: keras.Model) -> keras.layers.Layer:
    """Return the last average pooling layer of a classifier."""
    operations = reversed(backbone_operations(model))
    return next(each for each in operations if isinstance(each, keras.layers.GlobalAveragePooling2D))


def _last_map(model: keras.Model) -> Any:
    return model.get_layer("residual").output if is_detector_model(model) else average_pooling(model).input


def pooled(model: keras.Model) -> Any:
    """Return the symbolic output (N, D) of `extract_features`."""
    if not is_detector_model(model):
        return model.get_layer("batch_normalization").input
    code = model.get_layer("latent").output
    return keras.ops.mean(code, axis=(1, 2)) if len(code.shape) == 4 else code


def _feature_model(model: keras.Model) -> keras.Model:
    return _submodel(model, "features", lambda: pooled(model))


def _submodel(model: keras.Model, name: str, outputs: Callable[[], Any]) -> keras.Model:
    """Return the submodel that maps the input of `model` to `outputs()`; it is cached under `name`."""
    parts = _submodels.setdefault(model, {})
    if name not in parts:
        parts[name] = keras.Model(model.input, outputs())
    return parts[name]


def predict_batches(model: keras.Model, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the predictions of each batch. A shorter last batch is padded, so that only one shape is compiled."""
    size = 0
    for batch in batches:
        size = max(size, len(batch))
        yield predict_padded(model, batch, size)


def predict_padded(model: keras.Model, images: np.ndarray, size: int) -> Any:
    """Predict N images in a batch of `size`, padded with copies of the last image; return N rows per output."""
    missing = size - len(images)
    padded = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
    outputs = model.predict_on_batch(padded)
    return keras.tree.map_structure(lambda output: np.asarray(output)[: len(images)], outputs)


def _batches(images: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(images), batch_size):
        yield np.asarray(images[start : start + batch_size], np.float32)
