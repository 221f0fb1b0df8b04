"""Rewrite a network's configuration, so that one network and one seed are one configuration, hence one file.

A Keras model depends on what was built before it in the process (automatic names count up) and on the global random
state (seeds left to chance). Its configuration is a plain dictionary; here its names, seeds, precision and some layer
kinds are set, and the model is built anew from it.
"""

import hashlib
import json
import re
from typing import Any

import keras

from leaf.networks.layers import LayerScale

# What keras.applications' grouped Conv2D has in its configuration and DepthwiseConv2D has not.
_GROUPED_ONLY = ("filters", "groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint")
_KEPT_NAMES = ("image", "dropout", "preprocessing", "residual")
_HAVE_TRAINING = ("BatchNormalization", "Dense", "Dropout", "SpectralConv2D")
_FLOAT32 = ("dropout", "residual", "score", "logits")


def rewritten(config: dict[str, Any], name: str, seed: int, precision: str, rematerialize: bool = False) -> keras.Model:
    """Build the functional model of configuration `config`, rewritten, with new random weights.

    Args:
        config: `get_config()` of a functional model; it is not changed.
        name: the new model's name, and the first part of every name that Keras had made up (`add_17`).
        seed: fixes every initial weight and dropout mask.
        precision: dtype policy of all layers: `float32`, `mixed_float16` or `mixed_bfloat16`.
        rematerialize: of each layer keep its input for the gradient, and compute what is inside it again.

    Returns:
        A model with the same operations in the same order. A convolution with one group a channel has become a
        DepthwiseConv2D, which TensorFlow runs several times faster on a CPU; a Normalization by fixed figures has
        become a Rescaling, which exports without extra inputs.
    """
    config = json.loads(json.dumps(config))  # a copy, of lists where it had tuples
    rewriter = _Rewriter(name, seed, precision)
    layers = [rewriter.layer(layer) for layer in config["layers"]]
    for layer in layers:
        rewriter.rename_history(layer["inbound_nodes"])
    ends = {key: rewriter.rename_ends(config[key]) for key in ("input_layers", "output_layers")}
    scope = {"mode": "list_of_layers", "layer_names": _computed_again(layers)} if rematerialize else {"mode": None}
    with keras.RematScope(**scope):
        return keras.Model.from_config({**config, **ends, "name": name, "layers": layers})


def _computed_again(layers: list[dict[str, Any]]) -> list[str]:
    """The names of all layers that Keras can rematerialise: it cannot where a call takes `training`."""
    names: list[str] = []
    for layer in layers:
        if "layers" in layer["config"]:
            names += _computed_again(layer["config"]["layers"])
        elif layer["class_name"] not in _HAVE_TRAINING:
            names.append(layer["config"]["name"])
    return names


class _Rewriter:
    def __init__(self, prefix: str, seed: int, precision: str) -> None:
        self.prefix, self.seed, self.precision = prefix, seed, precision
        self.names: dict[str, str] = {}
        self.count: dict[str, int] = {}

    def layer(self, layer: dict[str, Any]) -> dict[str, Any]:
        """Give the serialised layer or operation `layer` rewritten, with the layers that it holds."""
        config = layer["config"]
        old = config["name"]
        config["name"] = self.rename(old, layer["class_name"])
        if "layers" in config:  # ConvNeXt's stem and downsampling are nested Sequentials
            config["layers"] = [self.layer(inner) for inner in config["layers"]]
        if isinstance(config.get("dtype"), dict) and old not in _FLOAT32:
            config["dtype"]["config"]["name"] = self.precision
        layer = _depthwise(layer)
        layer = _rescaling(layer)
        if layer["registered_name"] == "LayerScale":
            layer |= {"module": LayerScale.__module__, "registered_name": "leaf>LayerScale"}
        self._set_seeds(layer["config"], config["name"])
        if "name" in layer:
            layer["name"] = config["name"]
        return layer

    def rename(self, name: str, class_name: str) -> str:
        if name not in self.names:
            kind = _snake(class_name)
            made_up = re.fullmatch(rf"{kind}(_\d+)?", name) and name not in _KEPT_NAMES
            if made_up:
                self.count[kind] = self.count.get(kind, 0) + 1
            self.names[name] = f"{self.prefix}_{kind}_{self.count[kind]}" if made_up else name
        return self.names[name]

    def rename_history(self, node: Any) -> None:
        """Rename, in place, the layers that the tensors in `node` come from."""
        if isinstance(node, dict):
            if "keras_history" in node:
                node["keras_history"][0] = self.names[node["keras_history"][0]]
            for value in node.values():
                self.rename_history(value)
        elif isinstance(node, list):
            for value in node:
                self.rename_history(value)

    def rename_ends(self, ends: Any) -> Any:
        """Rename in `[name, 0, 0]`, or in a list of such."""
        if isinstance(ends[0], str):
            return [self.names[ends[0]], *ends[1:]]
        return [self.rename_ends(end) for end in ends]

    def _set_seeds(self, config: dict[str, Any], name: str) -> None:
        for key, value in config.items():
            if key == "seed" and value is None:
                digest = hashlib.blake2b(f"{self.seed} {name}".encode(), digest_size=4).digest()
                config[key] = int.from_bytes(digest) >> 1
            elif isinstance(value, dict):
                self._set_seeds(value, f"{name} {key}")


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


def _snake(name: str) -> str:
    """Keras's automatic name of a class: `GlobalAveragePooling2D` gives `global_average_pooling2d`."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
