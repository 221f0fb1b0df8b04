"""Build a classifier or detector from the name of its backbone, its settings and a seed.

Keras numbers automatic layer names per process and draws missing seeds from global state. `clone` makes names, seeds
and precision depend only on its arguments, so that identical settings produce identical files.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import keras
from keras import layers

from leaf.errors import LeafError
from leaf.models import backbones, gan
from leaf.models import layers as own_layers
from leaf.models.autoencoder import autoencoder
from leaf.models.backbones import VARIANTS
from leaf.models.convnext import convnext, convnext_atto
from leaf.models.freezing import freeze_backbone
from leaf.models.layers import CaffePreprocessing
from leaf.models.pretrained import APPLICATIONS, load_pretrained
from leaf.models.probe_files import snake_case

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
    A detector's logits have placeholder constants until `leaf.models.autoencoder.calibrate_detector` sets them.

    Args (the others are as in params.yaml):
        classes: number of logits.
        weights: initial weights of the backbone: `random`, or see `load_pretrained`.
        seed: determines every random weight and dropout mask.

    Returns:
        A model that maps images, float32 (N, image_size, image_size, 3) in 0..255, to logits, float32 (N, classes).

    Raises:
        LeafError: if the backbone does not support a setting, or the weights cannot be downloaded or loaded.
    """
    backbones.check(SimpleNamespace(**locals()), classes)
    if keras.config.image_data_format() != "channels_last":
        raise LeafError("keras.json: image_data_format: channels_first; valid: channels_last")
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
    """Build the model that `params` describes; `overrides` replace individual arguments of `build_model`."""
    return build_model(**{name: getattr(params, name) for name in backbones.BUILD_PARAMS} | overrides, classes=classes)


def _body(backbone: str, image_size: int, dropout: float | None) -> keras.Model:
    """Return a model that maps images to pooled features, with dropout on the images unless `dropout` is None."""
    x = image = keras.Input((image_size, image_size, 3), name="image")
    if dropout is not None:
        x = layers.Dropout(dropout, name="dropout")(image)
    if backbone in ("mobilenet", "mobilenet_v2", "xception"):
        x = layers.Rescaling(1 / 127.5, -1.0, name="preprocessing")(x)
    if backbone == "resnet50":
        x = CaffePreprocessing(name="preprocessing")(x)
    if backbone in _NETWORKS:
        return keras.Model(image, _NETWORKS[backbone](x))
    stock = APPLICATIONS[backbone](include_top=False, weights=None, input_tensor=x, pooling="avg")
    return keras.Model(image, stock.output)


def _cnn(image: Any, filters: Sequence[int], convolutions: int, normalized: bool, dropout: float) -> Any:
    """Return pooled features (N, filters[-1]) for images (N, H, W, 3) in 0..255; each stage halves the resolution."""
    # Grad-CAM requires a linear head after pooling, so the hidden dense layer is applied to each pixel before pooling.
    x = layers.Rescaling(1 / 127.5, -1.0, name="rescaling_to_one")(image)
    for stage, width in enumerate(filters):
        for number in range(convolutions):
            name = f"stage_{stage}_conv_{number}"
            conv = layers.Conv2D(
                width, 3, padding="same", use_bias=not normalized, kernel_initializer="he_normal", name=name
            )
            x = conv(x)
            if normalized:
                x = layers.BatchNormalization(name=f"{name}_norm")(x)
            x = layers.Activation("relu", name=f"{name}_relu")(x)
        x = layers.MaxPooling2D(2, name=f"stage_{stage}_pool")(x)
    x = layers.Dense(filters[-1], activation="relu", kernel_initializer="he_normal", name="features")(x)
    x = layers.Dropout(dropout, name="features_dropout")(x)
    return layers.GlobalAveragePooling2D(name="pool")(x)


_NETWORKS: dict[str, Callable[[Any], Any]] = {
    "convnext_atto": convnext_atto,
    **{name: partial(convnext, variant=variant) for name, variant in VARIANTS.items()},
    "cnn_small": partial(_cnn, filters=(32, 64, 128), convolutions=1, normalized=False, dropout=0.3),
    "cnn_medium": partial(_cnn, filters=(32, 64, 128, 256), convolutions=1, normalized=True, dropout=0.3),
    "cnn_large": partial(_cnn, filters=(32, 64, 128, 256, 512), convolutions=2, normalized=True, dropout=0.4),
}


_KEPT_NAMES = ("image", "dropout", "preprocessing", "residual")
_WITH_TRAINING_ARGUMENT = ("BatchNormalization", "Dense", "Dropout", "SpectralConv2D")
_FLOAT32 = ("dropout", "residual", "score", "logits")


def clone(model: keras.Model, name: str, seed: int, precision: str, rematerialize: bool = False) -> keras.Model:
    """Clone a functional model with new layer names and new random weights.

    Args:
        model: left unchanged.
        name: name of the clone and prefix of its automatic layer names.
        seed: determines every initial weight and dropout mask.
        precision: dtype policy of all layers, `float32` or `mixed_bfloat16`.
        rematerialize: recompute activations in the backward pass instead of storing them.

    Returns:
        A model with the same sequence of operations, some of them replaced by equivalent ones (`_equivalent`).
    """
    counts: dict[str, int] = {}
    configs = {}
    for operation in model.operations:
        layer = keras.saving.serialize_keras_object(operation)
        configs[id(operation)] = _new_config(layer, name, counts, seed, precision, compiled=not rematerialize)
    remat = _rematerializable(list(configs.values())) if rematerialize else []
    clones: dict[int, keras.Operation] = {}

    def clone_once(operation: keras.Operation) -> keras.Operation:  # called once for each use of a shared layer
        if id(operation) not in clones:
            clones[id(operation)] = keras.saving.deserialize_keras_object(configs[id(operation)])
        return clones[id(operation)]

    with keras.RematScope(mode="list_of_layers" if rematerialize else None, layer_names=remat):
        cloned = keras.models.clone_model(model, clone_function=clone_once)
    return keras.Model(cloned.input, cloned.output, name=name)


def _rematerializable(configs: list[dict[str, Any]]) -> list[str]:
    """Return the names of the layers whose `call` has no `training` argument; Keras can rematerialize only these."""
    names: list[str] = []
    for layer in configs:
        if "layers" in layer["config"]:
            names += _rematerializable(layer["config"]["layers"])
        elif layer["class_name"] not in _WITH_TRAINING_ARGUMENT:
            names.append(layer["config"]["name"])
    return names


def _new_config(
    layer: dict[str, Any], prefix: str, counts: dict[str, int], seed: int, precision: str, compiled: bool
) -> dict[str, Any]:
    """Return the `_equivalent` of a serialized layer and its nested layers, with new names, seeds and precision."""
    config = layer["config"]
    old = config["name"]
    config["name"] = _new_name(old, layer["class_name"], prefix, counts)
    if "layers" in config:
        config["layers"] = [_new_config(each, prefix, counts, seed, precision, compiled) for each in config["layers"]]
    if isinstance(config.get("dtype"), dict) and old not in _FLOAT32:
        config["dtype"]["config"]["name"] = precision
    layer = _equivalent(layer, compiled)
    _set_seeds(layer["config"], config["name"], seed)
    if "name" in layer:
        layer["name"] = config["name"]
    return layer


def _new_name(name: str, class_name: str, prefix: str, counts: dict[str, int]) -> str:
    """Replace an automatic name such as `add_17` with `PREFIX_add_NUMBER`; keep any other name."""
    kind = snake_case(class_name)
    if not re.fullmatch(rf"{kind}(_\d+)?", name) or name in _KEPT_NAMES:
        return name
    counts[kind] = counts.get(kind, 0) + 1
    return f"{prefix}_{kind}_{counts[kind]}"


def _equivalent(layer: dict[str, Any], compiled: bool) -> dict[str, Any]:
    """Replace a serialized layer with an equivalent one that is faster, or easier to save or export.

    A Conv2D with one group per channel becomes DepthwiseConv2D, which is several times faster in TensorFlow on a CPU. A
    Normalization with fixed statistics becomes Rescaling, which is exported without extra inputs. LayerScale and, if
    `compiled`, LayerNormalization and GELU become the layers in `leaf.models.layers`. Keras cannot rematerialize
    compiled layers, because their `call` has a `training` argument.
    """
    kind, config = layer["class_name"], layer["config"]
    basic = {key: config.get(key) for key in ("name", "trainable", "dtype")}
    if kind == "Conv2D" and config["groups"] == config["filters"] != 1:
        unsupported = ("filters", "groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
        depthwise = {key: value for key, value in config.items() if key not in unsupported}
        depthwise |= {"depthwise_initializer": config["kernel_initializer"], "depth_multiplier": 1}
        return {**layer, "class_name": "DepthwiseConv2D", "config": depthwise}
    if kind == "Normalization" and config["mean"] is not None:
        scale = [variance**-0.5 for variance in config["variance"]]
        offset = [-mean * factor for mean, factor in zip(config["mean"], scale, strict=True)]
        return {**layer, "class_name": "Rescaling", "config": {**basic, "scale": scale, "offset": offset}}
    if compiled and kind == "Activation" and config["activation"] == "gelu":
        kind, config = "GELU", basic
    elif kind != "LayerScale" and not (compiled and kind == "LayerNormalization"):
        return layer
    own = {"module": own_layers.__name__, "class_name": kind, "registered_name": f"leaf>{kind}"}
    return {**layer, **own, "config": config}


def _set_seeds(config: dict[str, Any], name: str, seed: int) -> None:
    for key, value in config.items():
        if key == "seed" and value is None:
            digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=4).digest()
            config[key] = int.from_bytes(digest) >> 1
        elif isinstance(value, dict):
            _set_seeds(value, f"{name} {key}", seed)
