"""Clone a Keras model with deterministic names, seeds and precision, and faster layer classes.

Keras numbers automatic layer names per process and draws missing seeds from global state. A clone depends only on its
arguments, so equal settings give identical files.
"""

import hashlib
import json
import re
from typing import Any

import keras

from leaf.models import layers as own_layers
from leaf.models.probe_files import snake_case

# Keys of a grouped Conv2D that DepthwiseConv2D does not accept.
_GROUPED_ONLY = ("filters", "groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
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
        A model with the same operations in the same order, except that a Conv2D with one group per channel becomes
        DepthwiseConv2D (several times faster in TensorFlow on a CPU), a Normalization with fixed statistics becomes
        Rescaling (which exports without extra inputs), and LayerNormalization and GELU are replaced by
        the layers in `leaf.models.layers`.
    """
    counts: dict[str, int] = {}
    configs = {
        id(operation): _new_config(_serialize(operation), name, counts, seed, precision, compiled=not rematerialize)
        for operation in model.operations
    }
    remat = _rematerializable(list(configs.values())) if rematerialize else []
    clones: dict[int, keras.Operation] = {}

    def clone_once(operation: keras.Operation) -> keras.Operation:  # Keras calls this once per use of a shared layer
        if id(operation) not in clones:
            clones[id(operation)] = keras.saving.deserialize_keras_object(configs[id(operation)])
        return clones[id(operation)]

    with keras.RematScope(mode="list_of_layers" if rematerialize else None, layer_names=remat):
        cloned = keras.models.clone_model(model, clone_function=clone_once)
    return keras.Model(cloned.input, cloned.output, name=name)


def _serialize(operation: keras.Operation) -> dict[str, Any]:
    return json.loads(json.dumps(keras.saving.serialize_keras_object(operation)))


def _rematerializable(configs: list[dict[str, Any]]) -> list[str]:
    """Return the names of the layers whose `call` takes no `training` argument; Keras can rematerialize only these."""
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
    """Return the serialized layer, nested layers included, with its new name, seeds, precision and class.

    `compiled` selects leaf's XLA-compiled classes, which Keras cannot rematerialize because `call` takes `training`.
    """
    config = layer["config"]
    old = config["name"]
    config["name"] = _new_name(old, layer["class_name"], prefix, counts)
    if "layers" in config:
        config["layers"] = [_new_config(each, prefix, counts, seed, precision, compiled) for each in config["layers"]]
    if isinstance(config.get("dtype"), dict) and old not in _FLOAT32:
        config["dtype"]["config"]["name"] = precision
    layer = _rescaling(_depthwise(layer))
    if layer["class_name"] == "LayerScale" or (compiled and layer["class_name"] == "LayerNormalization"):
        layer = _own(layer, layer["class_name"], config)
    if compiled and layer["class_name"] == "Activation" and config["activation"] == "gelu":
        layer = _own(layer, "GELU", {key: config[key] for key in ("name", "trainable", "dtype")})
    _set_seeds(layer["config"], config["name"], seed)
    if "name" in layer:
        layer["name"] = config["name"]
    return layer


def _new_name(name: str, class_name: str, prefix: str, counts: dict[str, int]) -> str:
    """Replace an automatic name such as `add_17` by `PREFIX_add_NUMBER`; keep any other name."""
    kind = snake_case(class_name)
    if not re.fullmatch(rf"{kind}(_\d+)?", name) or name in _KEPT_NAMES:
        return name
    counts[kind] = counts.get(kind, 0) + 1
    return f"{prefix}_{kind}_{counts[kind]}"


def _own(layer: dict[str, Any], name: str, config: dict[str, Any]) -> dict[str, Any]:
    own = {"module": own_layers.__name__, "class_name": name, "registered_name": f"leaf>{name}"}
    return {**layer, **own, "config": config}


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
