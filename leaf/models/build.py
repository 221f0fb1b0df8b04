"""Build a network so that its name and seed determine it, and so its file.

A classifier is backbone, average pooling, BatchNormalization, dropout, a logit for each class; the report's has its
dropout on the image. A Keras model depends on what was built before it in the process (automatic names count up) and on
the global random state (seeds left to chance), so a plain model is cloned with names, seeds, precision and some layer
classes of our choice.
"""

import hashlib
import json
import re
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import keras
from keras import layers

from leaf.errors import LeafError
from leaf.models import backbones, gan
from leaf.models import layers as own_layers
from leaf.models.autoencoder import autoencoder
from leaf.models.pretrained import freeze_backbone, load_pretrained, pooled_features, preprocessed

_DETECTORS: dict[str, Callable[[int, float], keras.Model]] = {
    "autoencoder": autoencoder,
    "autoencoder_redness": partial(autoencoder, redness=True),
    "gan": gan.layout,
    "gan_redness": partial(gan.layout, redness=True),
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
    """Build a classifier of images, or a detector.

    The model is flat: `image`, the backbone's operations, `batch_normalization`, `dropout`, `dense`, with `dropout`
    behind `image` where it is of the input; its name is the backbone's. Preprocessing is inside. Of a detector (see
    `leaf.models.autoencoder`) `calibrate` sets the constants of the logits after fitting.

    Args:
        backbone: a name of `leaf.models.backbones.BACKBONES`.
        image_size: side of the images, in pixels.
        classes: number of logits.
        dropout: share of values that are set to 0 in training.
        dropout_at: which: `input`, the image's own, or `head`, those that the logits are made of.
        weights: what the backbone starts from: `random`, `imagenet`, or a file.
        weights_sha256: the file's SHA-256; a file of another one is refused.
        freeze_depth: the first so many operations of the backbone do not learn; `all` for every one.
        freeze_normalization: no BatchNormalization of the backbone learns or moves its statistics, at any depth.
        head_initializer: what the logits' weights start from: `glorot_uniform` (Keras's own), or `zeros`, so that no
            random direction of pretrained features, which few images cannot correct, has a say.
        precision: `float32` or `mixed_bfloat16`; the logits are float32 always.
        rematerialize: compute activations twice instead of storing them.
        seed: fixes every random weight and the dropout masks.

    Returns:
        A model from images, float32 (N, image_size, image_size, 3) in 0..255, to logits, float32 (N, classes).

    Raises:
        LeafError: for an unknown name, too small an image, a wrong file, a failed download.
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
    of_input = dropout if dropout_at == "input" else None
    body = clone(_body(backbone, image_size, of_input), backbone, seed, precision, rematerialize)
    if weights != "random":
        load_pretrained(body, backbone, image_size, weights, weights_sha256)
    normalization = layers.BatchNormalization(name="batch_normalization", dtype="float32")
    initial = keras.initializers.Zeros() if head_initializer == "zeros" else keras.initializers.GlorotUniform(seed=seed)
    dense = layers.Dense(classes, kernel_initializer=initial, dtype="float32", name="dense")
    last = normalization(body.output)
    if of_input is None:
        last = layers.Dropout(dropout, seed=seed, dtype="float32", name="dropout")(last)
    model = keras.Model(body.input, dense(last), name=backbone)
    freeze_backbone(model, freeze_depth, freeze_normalization)
    return model


_PARAMS = (
    "image_size",
    "dropout",
    "dropout_at",
    "weights",
    "weights_sha256",
    "freeze_depth",
    "freeze_normalization",
    "head_initializer",
    "precision",
    "rematerialize",
    "seed",
)


def build_model_from_params(params: Any, classes: int) -> keras.Model:
    """Build the network that the attributes of `params`, named as `build`'s arguments, ask for, with so many logits."""
    return build_model(params.backbone, classes=classes, **{name: getattr(params, name) for name in _PARAMS})


def _body(backbone: str, image_size: int, dropout: float | None) -> keras.Model:
    """Give the model from image to pooled features, as keras.applications or our own code makes it.

    With a `dropout`, the image passes one.
    """
    image = keras.Input((image_size, image_size, 3), name="image")
    dropped = image if dropout is None else layers.Dropout(dropout, name="dropout")(image)
    return keras.Model(image, pooled_features(backbone, preprocessed(backbone, dropped)))


# What keras.applications' grouped Conv2D has in its configuration and DepthwiseConv2D has not.
_GROUPED_ONLY = ("filters", "groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
_KEPT_NAMES = ("image", "dropout", "preprocessing", "residual")
_WITH_TRAINING_ARGUMENT = ("BatchNormalization", "Dense", "Dropout", "SpectralConv2D")
_FLOAT32 = ("dropout", "residual", "score", "logits")


def clone(model: keras.Model, name: str, seed: int, precision: str, rematerialize: bool = False) -> keras.Model:
    """Clone the functional `model` with new names and new random weights.

    Args:
        model: what is cloned; it is not changed.
        name: the new model's name, and the first part of every name that Keras had made up (`add_17`).
        seed: determines every initial weight and dropout mask.
        precision: dtype policy of all layers: `float32` or `mixed_bfloat16`.
        rematerialize: store the input of each layer for the gradient, and compute what is inside it again.

    Returns:
        A model with the same operations in the same order. A convolution with one group a channel has become a
        DepthwiseConv2D, which TensorFlow runs several times faster on a CPU; a Normalization by fixed numbers has
        become a Rescaling, which exports without extra inputs; LayerNormalization and GELU have become ours.
    """
    names = _Names(name)
    serialized = {
        id(each): _new_layer(_serialized(each), names, seed, precision, compiled=not rematerialize)
        for each in model.operations
    }
    remat = _rematerializable(list(serialized.values())) if rematerialize else []
    made: dict[int, keras.Operation] = {}

    def clone_once(operation: keras.Operation) -> keras.Operation:  # Keras calls it for each use of a shared layer
        if id(operation) not in made:
            made[id(operation)] = keras.saving.deserialize_keras_object(serialized[id(operation)])
        return made[id(operation)]

    with keras.RematScope(mode="list_of_layers" if rematerialize else None, layer_names=remat):
        cloned = keras.models.clone_model(model, clone_function=clone_once)
    return keras.Model(cloned.input, cloned.output, name=name)


def _serialized(operation: keras.Operation) -> dict[str, Any]:
    """The operation as a `.keras` file has it, a copy with lists instead of tuples."""
    return json.loads(json.dumps(keras.saving.serialize_keras_object(operation)))


def _rematerializable(serialized: list[dict[str, Any]]) -> list[str]:
    """The names of all layers that Keras can rematerialize: those whose call takes no argument `training`."""
    names: list[str] = []
    for layer in serialized:
        if "layers" in layer["config"]:
            names += _rematerializable(layer["config"]["layers"])
        elif layer["class_name"] not in _WITH_TRAINING_ARGUMENT:
            names.append(layer["config"]["name"])
    return names


class _Names:
    """Names for the layers of a clone: Keras's automatic ones are numbered anew, behind a prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.count: dict[str, int] = {}

    def new(self, name: str, class_name: str) -> str:
        kind = _snake_case(class_name)
        if not re.fullmatch(rf"{kind}(_\d+)?", name) or name in _KEPT_NAMES:
            return name
        self.count[kind] = self.count.get(kind, 0) + 1
        return f"{self.prefix}_{kind}_{self.count[kind]}"


def _new_layer(layer: dict[str, Any], names: _Names, seed: int, precision: str, compiled: bool) -> dict[str, Any]:
    """Give the serialized `layer` with its new name, seeds, precision and class, and so the layers that it holds.

    `compiled`: of our classes that XLA compiles; Keras cannot rematerialize those, for their call takes `training`.
    """
    config = layer["config"]
    old = config["name"]
    config["name"] = names.new(old, layer["class_name"])
    if "layers" in config:  # ConvNeXt's stem and downsampling are nested Sequentials
        config["layers"] = [_new_layer(inner, names, seed, precision, compiled) for inner in config["layers"]]
    if isinstance(config.get("dtype"), dict) and old not in _FLOAT32:
        config["dtype"]["config"]["name"] = precision
    layer = _rescaling(_depthwise(layer))
    if layer["class_name"] == "LayerScale" or (compiled and layer["class_name"] == "LayerNormalization"):
        layer = _ours(layer, layer["class_name"], config)
    if compiled and layer["class_name"] == "Activation" and config["activation"] == "gelu":
        layer = _ours(layer, "GELU", {key: config[key] for key in ("name", "trainable", "dtype")})
    _set_seeds(layer["config"], config["name"], seed)
    if "name" in layer:
        layer["name"] = config["name"]
    return layer


def _ours(layer: dict[str, Any], name: str, config: dict[str, Any]) -> dict[str, Any]:
    ours = {"module": own_layers.__name__, "class_name": name, "registered_name": f"leaf>{name}"}
    return {**layer, **ours, "config": config}


def _set_seeds(config: dict[str, Any], name: str, seed: int) -> None:
    for key, value in config.items():
        if key == "seed" and value is None:
            digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=4).digest()
            config[key] = int.from_bytes(digest) >> 1
        elif isinstance(value, dict):
            _set_seeds(value, f"{name} {key}", seed)


def _depthwise(layer: dict[str, Any]) -> dict[str, Any]:
    config = layer["config"]
    if layer["class_name"] != "Conv2D" or config["groups"] == 1 or config["groups"] != config["filters"]:
        return layer
    kept = {key: value for key, value in config.items() if key not in _GROUPED_ONLY}
    depthwise = {"depthwise_initializer": config["kernel_initializer"], "depth_multiplier": 1}
    return {**layer, "class_name": "DepthwiseConv2D", "config": kept | depthwise}


def _rescaling(layer: dict[str, Any]) -> dict[str, Any]:
    config = layer["config"]
    if layer["class_name"] != "Normalization" or config["mean"] is None:
        return layer
    scale = [variance**-0.5 for variance in config["variance"]]
    offset = [-mean * factor for mean, factor in zip(config["mean"], scale, strict=True)]
    kept = {key: config[key] for key in ("name", "trainable", "dtype")}
    return {**layer, "class_name": "Rescaling", "config": {**kept, "scale": scale, "offset": offset}}


def _snake_case(name: str) -> str:
    """Keras's automatic name of a class: `GlobalAveragePooling2D` gives `global_average_pooling2d`."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
