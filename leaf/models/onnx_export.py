"""Export a Keras model to ONNX for `leaf.models.onnx_inference`, layer by layer."""

import json
import math
from collections import deque
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from leaf.errors import LeafError
from leaf.models.autoencoder import SMALLEST, is_detector_model
from leaf.models.onnx_inference import LIMIT, OUTPUTS, TOLERANCE, Metadata, Network, OnnxNetwork
from leaf.models.prediction import KerasNetwork, average_pooling
from leaf.store import replacing

OPSET = 20


def write(model: keras.Model, metadata: Metadata, images: np.ndarray, path: str | Path) -> str:
    """Write a model as an ONNX file and check that its outputs match Keras's.

    The input is `images`, float32 (N, S, S, 3) in 0..255. The outputs are `probabilities` (N, C) after temperature
    scaling, pooled `features` (N, D) and, for Grad-CAM, `map` (N, h, w, K) and `slopes` (C, K). Each entry of
    `metadata` is stored in the file's metadata as JSON.

    Args:
        model: from `build_model` or `load_model`.
        metadata: from `leaf.models.onnx_inference.metadata`; `temperature` divides the logits.
        images: (N, S, S, 3) in 0..255, for the comparison.
        path: file to write.

    Returns:
        "" on success. Otherwise, the file is empty, and the reason is returned, such as an unsupported layer.
    """
    network = KerasNetwork(model, metadata["temperature"])
    with replacing(path) as partial:
        try:
            partial.write_bytes(_converted(model, metadata, network))
            _compare(OnnxNetwork(partial), network, np.asarray(images, np.float32))
        except LeafError as error:
            partial.write_bytes(b"")
            return str(error).replace(str(partial), str(path))
    return ""


def _compare(given: Network, wanted: Network, images: np.ndarray) -> None:
    """Raise LeafError if the outputs of the two networks for `images` differ by more than rounding errors."""
    pairs = [*zip(given.predict(images), wanted.predict(images), strict=True)]
    pairs.append((given.last_map(images), wanted.last_map(images)))
    for name, (found, expected) in zip(OUTPUTS, pairs, strict=False):
        scale = 1 if name == "probabilities" else 10 * max(1, float(np.abs(expected).max(initial=0)))
        if not (difference := float(np.abs(found - expected).max(initial=0))) <= TOLERANCE * scale:
            raise LeafError(f"the ONNX output `{name}` differs from Keras by {difference:.1g}")


def _converted(model: keras.Model, metadata: Metadata, network: Network) -> bytes:
    from onnx import helper

    size = sum(4 * math.prod(weight.shape) for weight in model.weights)
    if size > LIMIT - (16 << 20):  # 16 MiB are reserved for everything except the weights
        raise LeafError(f"{size} bytes of weights exceed the ONNX limit of {LIMIT}")
    graph = Graph()
    logits = graph.run(model, Value("images", "NHWC"))
    scaled = graph.node("Mul", logits.name, graph.constant(1 / metadata["temperature"]))
    if is_detector_model(model):
        code = graph.outputs["latent"]
        features = graph.mean(code) if code.layout != "NC" else code
        last = graph.outputs["score errors"]
    else:
        features = graph.inputs["batch_normalization"]
        last = graph.inputs[average_pooling(model).name]
    graph.node("Softmax", scaled, output="probabilities", axis=-1)
    graph.node("Identity", features.name, output="features")
    graph.node("Identity", graph.last(last).name, output="map")
    graph.node("Identity", graph.constant(network.head.slopes), output="slopes")
    classes, side = model.output_shape[-1], network.image_size
    shapes = (["N", classes], ["N", None], ["N", None, None, None], [classes, None])
    made = helper.make_graph(
        graph.nodes,
        model.name,
        [helper.make_tensor_value_info("images", 1, ["N", side, side, 3])],
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in zip(OUTPUTS, shapes, strict=True)],
        graph.constants,
    )
    file = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9, producer_name="leaf")
    properties = {**metadata, "epsilon": network.head.epsilon}
    helper.set_model_props(file, {name: json.dumps(value) for name, value in properties.items()})
    return file.SerializeToString()


class Value(NamedTuple):
    """A tensor in the graph: its name and its layout, `NHWC`, `NCHW` or `NC`."""

    name: str
    layout: str


class Graph:
    """An ONNX graph under construction; `inputs` and `outputs` map Keras layer names to their tensors."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, Value] = {}
        self._transposed: dict[Value, Value] = {}

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add an operator and return the name of its first output."""
        from onnx import helper

        output = output or f"{operator}_{len(self.nodes)}"
        outputs = [output, f"{output}_places"] if operator == "TopK" else [output]
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return output

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add the value of an array or variable as a constant and return its name."""
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, dtype, order="C"), name))
        return name

    def first(self, value: Value) -> Value:
        """Return the value in channels-first layout, for convolutions."""
        return self._transpose(value, "NCHW", [0, 3, 1, 2]) if value.layout == "NHWC" else value

    def last(self, value: Value) -> Value:
        """Return the value in channels-last layout, for Dense and LayerNormalization."""
        return self._transpose(value, "NHWC", [0, 2, 3, 1]) if value.layout == "NCHW" else value

    def _transpose(self, value: Value, layout: str, order: list[int]) -> Value:
        if value not in self._transposed:
            self._transposed[value] = Value(self.node("Transpose", value.name, perm=order), layout)
            self._transposed[self._transposed[value]] = value
        return self._transposed[value]

    def each(self, operator: str, value: Value, *more: str, **attributes: Any) -> Value:
        """Apply an operator to a value and the tensors named in `more`; the result has the layout of the value."""
        return Value(self.node(operator, value.name, *more, **attributes), value.layout)

    def channels(self, operator: str, value: Value, constant: Any) -> Value:
        """Apply an operator to a value and a constant: a scalar, or an array with one element per channel."""
        array = np.array(constant, np.float32)
        if array.ndim and value.layout == "NCHW":
            array = array.reshape(-1, 1, 1)
        return self.each(operator, value, self.constant(array))

    def pair(self, operator: str, left: Value, right: Value) -> Value:
        """Apply an operator to two values; the result has the layout of the first."""
        right = self.last(right) if left.layout == "NHWC" else self.first(right)
        return self.each(operator, left, right.name)

    def mean(self, value: Value, keepdims: bool = False) -> Value:
        """Average over height and width; the result is (N, C), unless `keepdims` keeps the layout of the value."""
        axes = self.constant([2, 3] if value.layout == "NCHW" else [1, 2], np.int64)
        mean = self.each("ReduceMean", value, axes, keepdims=int(keepdims))
        return mean if keepdims else Value(mean.name, "NC")

    def run(self, model: keras.Model, *inputs: Value) -> Value:
        """Add the operators of a single-output model and return its output."""
        if isinstance(model, keras.Sequential):
            return reduce(lambda value, layer: self._apply(layer, value), model.layers, *inputs)
        known = dict(zip(map(id, model.inputs), inputs, strict=True))
        nodes = {node for nodes in model._nodes_by_depth.values() for node in nodes if not node.is_input}
        waiting = deque(node for each in model.operations for node in each._inbound_nodes if node in nodes)
        while waiting:
            node = waiting.popleft()
            if known.keys() >= set(map(id, node.input_tensors)):
                values = (known[id(tensor)] for tensor in node.input_tensors)
                known[id(node.outputs[0])] = self._apply(node.operation, *values)
            else:  # the second call of a shared layer can be listed before its inputs
                waiting.append(node)
        return known[id(model.outputs[0])]

    def _apply(self, layer: keras.Operation, *inputs: Value) -> Value:
        if isinstance(layer, keras.Model):
            output = self.run(layer, *inputs)
        elif function := LAYERS.get(type(layer).__name__):
            output = function(self, layer, *inputs)
        else:
            raise LeafError(f"the layer {layer.name} ({type(layer).__name__}) has no ONNX conversion")
        self.inputs[layer.name], self.outputs[layer.name] = inputs[0], output
        return output


def _activated(graph: Graph, layer: Any, value: Value) -> Value:
    """Apply a layer's activation."""
    name = keras.activations.serialize(layer.activation)
    if name == "linear":
        return value
    if name in ("silu", "swish"):
        return graph.pair("Mul", value, graph.each("Sigmoid", value))
    if name == "relu6":
        return graph.each("Clip", value, graph.constant(0), graph.constant(6))
    simple = {"relu": "Relu", "gelu": "Gelu", "sigmoid": "Sigmoid", "tanh": "Tanh"}
    if name not in simple:
        raise LeafError(f"the activation {name} of {layer.name} has no ONNX conversion")
    return graph.each(simple[name], value)


def _relu(graph: Graph, layer: Any, value: Value) -> Value:
    if layer.max_value is None:
        return graph.each("Relu", value)
    return graph.each("Clip", value, graph.constant(0), graph.constant(layer.max_value))


def _rescaling(graph: Graph, layer: Any, value: Value) -> Value:
    return graph.channels("Add", graph.channels("Mul", value, layer.scale), layer.offset)


def _caffe(graph: Graph, layer: Any, value: Value) -> Value:
    order = graph.constant([2, 1, 0], np.int64)
    return graph.channels("Sub", graph.each("Gather", graph.last(value), order, axis=3), layer.mean)


def _batch_normalization(graph: Graph, layer: Any, value: Value) -> Value:
    weights = (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance)
    constants = [graph.constant(each) for each in weights]
    return graph.each("BatchNormalization", graph.first(value), *constants, epsilon=layer.epsilon)


def _layer_normalization(graph: Graph, layer: Any, value: Value) -> Value:
    value = graph.last(value)
    constants = graph.constant(layer.gamma), graph.constant(layer.beta)
    return graph.each("LayerNormalization", value, *constants, axis=-1, epsilon=layer.epsilon)


def _global_response_normalization(graph: Graph, layer: Any, value: Value) -> Value:
    value = graph.last(value)
    norm = graph.each("ReduceL2", value, graph.constant([1, 2], np.int64), keepdims=1)
    mean = graph.each("ReduceMean", norm, graph.constant([3], np.int64), keepdims=1)
    scaled = graph.pair("Mul", value, graph.pair("Div", norm, graph.channels("Add", mean, layer.epsilon)))
    return graph.pair("Add", graph.channels("Add", value, layer.beta), graph.channels("Mul", scaled, layer.gamma))


def _dense(graph: Graph, layer: Any, value: Value) -> Value:
    value = graph.each("MatMul", graph.last(value), graph.constant(layer.kernel))
    return _activated(graph, layer, graph.channels("Add", value, layer.bias) if layer.use_bias else value)


def _convolved(
    graph: Graph, layer: Any, value: Value, kernel: Any, groups: int = 1, operator: str = "Conv", bias: bool = True
) -> Value:
    """Add a convolution with `kernel` in ONNX layout and the bias, strides, dilation and padding of `layer`."""
    constants = [graph.constant(kernel)] + ([graph.constant(layer.bias)] if bias and layer.use_bias else [])
    window = {"strides": list(layer.strides), "auto_pad": _PADDING[layer.padding], "group": groups}
    return graph.each(operator, graph.first(value), *constants, dilations=list(layer.dilation_rate), **window)


_PADDING = {"same": "SAME_UPPER", "valid": "VALID"}


def _conv(graph: Graph, layer: Any, value: Value, operator: str = "Conv") -> Value:
    kernel = layer._normalized(False) if type(layer).__name__ == "SpectralConv2D" else layer.kernel
    kernel, groups = np.array(kernel).transpose(3, 2, 0, 1), getattr(layer, "groups", 1)
    return _activated(graph, layer, _convolved(graph, layer, value, kernel, groups, operator))


def _depthwise(graph: Graph, layer: Any, value: Value) -> Value:
    return _activated(graph, layer, _convolved(graph, layer, value, *_by_channel(layer.kernel)))


def _by_channel(kernel: Any) -> tuple[np.ndarray, int]:
    """Convert a depthwise kernel (h, w, C, M) to ONNX layout, (C · M, 1, h, w); return it and the number of groups."""
    array = np.array(kernel)
    return array.transpose(2, 3, 0, 1).reshape(-1, 1, *array.shape[:2]), array.shape[2]


def _separable(graph: Graph, layer: Any, value: Value) -> Value:
    value = _convolved(graph, layer, value, *_by_channel(layer.depthwise_kernel), bias=False)
    value = graph.each("Conv", value, graph.constant(np.array(layer.pointwise_kernel).transpose(3, 2, 0, 1)))
    return _activated(graph, layer, graph.channels("Add", value, layer.bias) if layer.use_bias else value)


def _pooled(operator: str, graph: Graph, layer: Any, value: Value) -> Value:
    window = {"kernel_shape": list(layer.pool_size), "strides": list(layer.strides)}
    return graph.each(operator, graph.first(value), auto_pad=_PADDING[layer.padding], **window)


def _padded(graph: Graph, layer: Any, value: Value) -> Value:
    rows, columns = layer.padding
    pads = [0, 0, rows[0], columns[0], 0, 0, rows[1], columns[1]]
    return graph.each("Pad", graph.first(value), graph.constant(pads, np.int64))


def _upsampled(graph: Graph, layer: Any, value: Value) -> Value:
    scales, mode = graph.constant([1, 1, *layer.size]), layer.interpolation.replace("bilinear", "linear")
    return graph.each("Resize", graph.first(value), "", scales, mode=mode)


def _reshaped(graph: Graph, layer: Any, value: Value) -> Value:
    shape = graph.constant([0, *layer.target_shape], np.int64)
    reshaped = graph.node("Reshape", graph.last(value).name, shape)
    return Value(reshaped, "NHWC" if len(layer.target_shape) == 3 else "NC")


def _combined(operator: str, graph: Graph, _: Any, *values: Value) -> Value:
    return reduce(partial(graph.pair, operator), values)


def _residual(graph: Graph, _: Any, image: Value, reconstruction: Value) -> Value:
    scaled = graph.channels("Sub", graph.channels("Div", image, 127.5), 1.0)
    return graph.pair("Sub", scaled, reconstruction)


def _score(graph: Graph, layer: Any, residual: Value, *differences: Value) -> Value:
    """Add a ReconstructionScore layer; its per-pixel errors become the output `map`."""
    counted = graph.last(residual)
    if layer.redness:
        redder = graph.first(graph.each("MatMul", counted, graph.constant([[1], [-1], [0]])))
        window = {"kernel_shape": [layer.block] * 2, "strides": [1, 1], "auto_pad": "SAME_UPPER"}
        counted = graph.each("Relu", graph.each("AveragePool", redder, **window))
    errors = graph.pair("Mul", counted, counted)
    if not layer.redness:
        errors = graph.each("ReduceMean", errors, graph.constant([3], np.int64), keepdims=1)
    graph.outputs["score errors"], flat = errors, graph.node("Flatten", errors.name, axis=1)
    if layer.redness:
        places = math.prod(keras.tree.flatten(layer.input)[0].shape[1:3])
        flat = graph.node("TopK", flat, graph.constant([max(1, round(places * layer.worst))], np.int64), axis=1)
    axes = graph.constant([1], np.int64)
    error = Value(graph.node("ReduceMean", flat, axes, keepdims=1), "NC")
    for difference in differences:
        square = graph.node("Flatten", graph.pair("Mul", difference, difference).name, axis=1)
        mean = Value(graph.node("ReduceMean", square, axes, keepdims=1), "NC")
        error = graph.pair("Add", error, graph.channels("Mul", mean, layer.feature_weight))
    return graph.each("Log", graph.channels("Add", error, SMALLEST))


def _score_logits(graph: Graph, layer: Any, score: Value) -> Value:
    second = graph.channels("Mul", graph.channels("Sub", score, layer.threshold), layer.scale)
    return Value(graph.node("Concat", graph.channels("Mul", score, 0).name, second.name, axis=1), "NC")


LAYERS: dict[str, Callable[..., Value]] = {
    "Activation": _activated,
    "Add": partial(_combined, "Add"),
    "AveragePooling2D": partial(_pooled, "AveragePool"),
    "BatchNormalization": _batch_normalization,
    "CaffePreprocessing": _caffe,
    "Conv2D": _conv,
    "Conv2DTranspose": partial(_conv, operator="ConvTranspose"),
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": lambda _graph, _layer, value: value,
    "Flatten": lambda graph, _, value: Value(graph.node("Flatten", graph.last(value).name, axis=1), "NC"),
    "GELU": lambda graph, _, value: graph.each("Gelu", value),
    "GlobalAveragePooling2D": lambda graph, layer, value: graph.mean(value, layer.keepdims),
    "GlobalResponseNormalization": _global_response_normalization,
    "LayerNormalization": _layer_normalization,
    "LayerScale": lambda graph, layer, value: graph.channels("Mul", value, layer.gamma),
    "LeakyReLU": lambda graph, layer, value: graph.each("LeakyRelu", value, alpha=layer.negative_slope),
    "MaxPooling2D": partial(_pooled, "MaxPool"),
    "Multiply": partial(_combined, "Mul"),
    "ReLU": _relu,
    "ReconstructionScore": _score,
    "Rescaling": _rescaling,
    "Reshape": _reshaped,
    "Residual": _residual,
    "ScoreLogits": _score_logits,
    "SeparableConv2D": _separable,
    "SpectralConv2D": _conv,
    "Subtract": partial(_combined, "Sub"),
    "UpSampling2D": _upsampled,
    "ZeroPadding2D": _padded,
}
