"""Build a classifier or detector from a backbone name, settings and seed."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import keras
from keras import layers

from leaf.errors import LeafError
from leaf.models import backbones, gan
from leaf.models.autoencoder import autoencoder
from leaf.models.clone import clone
from leaf.models.freezing import freeze_backbone
from leaf.models.pretrained import load_pretrained, pooled_features, preprocessed

_DETECTORS: dict[str, Callable[[int, float], keras.Model]] = {
    "autoencoder": autoencoder,
    "autoencoder_redness": partial(autoencoder, redness=True),
    "gan": gan.gan,
    "gan_redness": partial(gan.gan, redness=True),
}


def build_model(
    backbone: str,
    image_size: int,
    classes: int = 2,
    dropout: float = 0.1,
    dropout_at: str = "head",
    weights: str = "random",
    weights_sha256: str = "",
    freeze_depth: int | str = 0,
    freeze_normalization: bool = False,
    head_initializer: str = "glorot_uniform",
    precision: str = "float32",
    rematerialize: bool = False,
    seed: int = 42,
) -> keras.Model:
    """Build a classifier or a detector.

    A classifier is a flat model: `image`, the backbone's operations with preprocessing, `batch_normalization`,
    `dropout` and `dense`. With `dropout_at="input"`, `dropout` follows `image`. The model is named after the backbone.
    After training a detector, set the constants of its logits with `leaf.models.autoencoder.calibrate_detector`.

    Args:
        backbone: a name in `leaf.models.backbones.BACKBONES`.
        image_size: side of the images in pixels.
        classes: number of logits.
        dropout: dropout rate.
        dropout_at: `input` drops values of the image, `head` drops pooled features.
        weights: initial weights of the backbone: `random`, `imagenet`, or a file.
        weights_sha256: expected SHA-256 of the weights file, in hex.
        freeze_depth: number of backbone operations to freeze, or `all`.
        freeze_normalization: freeze every BatchNormalization in the backbone, regardless of `freeze_depth`.
        head_initializer: `glorot_uniform`, or `zeros`, which suits pretrained features and few images.
        precision: `float32` or `mixed_bfloat16`; the logits are always float32.
        rematerialize: recompute activations in the backward pass instead of storing them.
        seed: determines every random weight and dropout mask.

    Returns:
        A model from images, float32 (N, image_size, image_size, 3) in 0..255, to logits, float32 (N, classes).

    Raises:
        LeafError: if a setting does not fit the backbone, or the weights cannot be downloaded or loaded.
    """
    if keras.config.image_data_format() != "channels_last":
        raise LeafError("keras.json: image_data_format: channels_first; valid: channels_last")
    backbones.check(
        SimpleNamespace(
            backbone=backbone,
            image_size=image_size,
            weights=weights,
            freeze_depth=freeze_depth,
            freeze_normalization=freeze_normalization,
            head_initializer=head_initializer,
            dropout_at=dropout_at,
        ),
        classes,
    )
    if backbone in _DETECTORS:
        return clone(_DETECTORS[backbone](image_size, dropout), backbone, seed, precision, rematerialize)
    input_dropout = dropout if dropout_at == "input" else None
    body = clone(_body(backbone, image_size, input_dropout), backbone, seed, precision, rematerialize)
    if weights != "random":
        load_pretrained(body, backbone, image_size, weights, weights_sha256)
    x = layers.BatchNormalization(name="batch_normalization", dtype="float32")(body.output)
    if input_dropout is None:
        x = layers.Dropout(dropout, seed=seed, dtype="float32", name="dropout")(x)
    initial = keras.initializers.Zeros() if head_initializer == "zeros" else keras.initializers.GlorotUniform(seed=seed)
    logits = layers.Dense(classes, kernel_initializer=initial, dtype="float32", name="dense")(x)
    model = keras.Model(body.input, logits, name=backbone)
    freeze_backbone(model, freeze_depth, freeze_normalization)
    return model


def build_model_from_params(params: Any, classes: int, **overrides: Any) -> keras.Model:
    """Build the model described by `params`; `overrides` replace individual arguments of `build_model`."""
    return build_model(**{name: getattr(params, name) for name in backbones.BUILD_PARAMS} | overrides, classes=classes)


def _body(backbone: str, image_size: int, dropout: float | None) -> keras.Model:
    """Return the model from the image to pooled features, with dropout on the image unless `dropout` is None."""
    image = keras.Input((image_size, image_size, 3), name="image")
    dropped = image if dropout is None else layers.Dropout(dropout, name="dropout")(image)
    return keras.Model(image, pooled_features(backbone, preprocessed(backbone, dropped)))
