"""Build a classifier: dropout on the image, backbone, average pooling, BatchNormalization, two logits."""

from typing import Any

import keras
from keras import layers

from leaf.errors import LeafError
from leaf.networks import registry
from leaf.networks import weights as published
from leaf.networks.freezing import freeze
from leaf.networks.rewriting import rewritten

PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def build(
    backbone: str,
    image_size: int,
    classes: int = 2,
    dropout: float = 0.1,
    weights: str = "random",
    weights_sha256: str = "",
    freeze_depth: int | str = 0,
    freeze_normalization: bool = False,
    head_initializer: str = "glorot_uniform",
    precision: str = "float32",
    rematerialize: bool = False,
    seed: int = 42,
) -> keras.Model:
    """Build a classifier of images, or a detector.

    The model is flat: `image`, `dropout`, the backbone's operations, `batch_normalization`, `dense`; its name is the
    backbone's. Preprocessing is inside. Of a detector (see `leaf.networks.detector`) `calibrate` sets the constants of
    the logits after fitting.

    Args:
        backbone: a name of `registry.names()`.
        image_size: side of the images, in pixels.
        classes: number of logits.
        dropout: share of the *input image's* values that are set to 0 in training.
        weights: what the backbone starts from: `random`, `imagenet`, or a file.
        weights_sha256: the file's SHA-256; a file of another one is refused.
        freeze_depth: the first so many operations of the backbone do not learn; `all` for every one.
        freeze_normalization: no BatchNormalization of the backbone learns or moves its statistics, at any depth.
        head_initializer: what the logits' weights start from: `glorot_uniform` (Keras's own), or `zeros`, so that no
            random direction of pretrained features, which few images cannot correct, has a say.
        precision: `float32`, `mixed_float16` or `mixed_bfloat16`; the logits are float32 always.
        rematerialize: compute activations twice instead of storing them.
        seed: fixes every random weight and the dropout masks.

    Returns:
        A model from images, float32 (N, image_size, image_size, 3) in 0..255, to logits, float32 (N, classes).

    Raises:
        LeafError: for an unknown name, too small an image, a wrong file, a failed download.
    """
    if keras.config.image_data_format() != "channels_last":
        raise LeafError("keras.json: image_data_format: channels_first; valid: channels_last")
    if registry.is_detector(backbone):
        _check_detector(backbone, weights, freeze_depth, freeze_normalization, head_initializer)
        layout = registry.find_detector(backbone).plan(image_size, dropout).get_config()
        return rewritten(layout, backbone, seed, precision, rematerialize)
    kind = registry.find(backbone)
    if image_size < kind.minimum:
        raise LeafError(f"image_size: {image_size}; valid: at least {kind.minimum} for {backbone}")
    plan = _plan(kind, image_size, dropout)
    body = rewritten(plan, backbone, seed, precision, rematerialize)
    if weights != "random":
        published.transfer(body, backbone, image_size, weights, weights_sha256)
    normalization = layers.BatchNormalization(name="batch_normalization", dtype="float32")
    initial = keras.initializers.Zeros() if head_initializer == "zeros" else keras.initializers.GlorotUniform(seed=seed)
    dense = layers.Dense(classes, kernel_initializer=initial, dtype="float32", name="dense")
    model = keras.Model(body.input, dense(normalization(body.output)), name=backbone)
    freeze(model, freeze_depth, freeze_normalization)
    return model


def _plan(kind: registry.Backbone, image_size: int, dropout: float) -> dict[str, Any]:
    """Give the configuration from image to pooled features; the network that it was read from is dropped."""
    image = keras.Input((image_size, image_size, 3), name="image")
    dropped = layers.Dropout(dropout, name="dropout")(image)
    prepared = kind.preprocessing()(dropped) if kind.preprocessing else dropped
    return keras.Model(image, kind.features(prepared)).get_config()


def _check_detector(
    name: str, weights: str, freeze_depth: int | str, freeze_normalization: bool, head_initializer: str
) -> None:
    if weights != "random":
        raise LeafError(f"weights: {weights}; valid: random for {name}, which learns from nothing else")
    if freeze_depth != 0:
        raise LeafError(f"freeze_depth: {freeze_depth}; valid: 0 for {name}, which has no backbone")
    if freeze_normalization:
        raise LeafError(f"freeze_normalization: true; valid: false for {name}, which has no backbone")
    if head_initializer != "glorot_uniform":
        raise LeafError(f"head_initializer: {head_initializer}; valid: glorot_uniform for {name}, which has no head")
