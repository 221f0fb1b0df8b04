"""Inference with ONNX Runtime, without Keras, on files written by `leaf.models.onnx_export`."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from leaf.errors import LeafError
from leaf.models.tta import tta_view

Metadata: TypeAlias = dict[str, Any]  # see `metadata`
OUTPUTS = ("probabilities", "features", "map", "slopes")
# fmt: off
OPERATORS = frozenset({
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Flatten", "Gather",
    "Gelu", "Identity", "LayerNormalization", "LeakyRelu", "Log", "MatMul", "MaxPool", "Mul", "Pad",
    "ReduceL2", "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Softmax", "Sub", "Tanh", "TopK", "Transpose",
})  # the operators that the exporter uses; none can run code, read files or loop
# fmt: on
LIMIT = 2**31 - 1  # maximum file size in bytes; protobuf's limit
TOLERANCE = 1e-4  # maximum accepted difference between the probabilities of ONNX Runtime and Keras
NOT_FINITE = "the model outputs NaN or infinite logits: its weights or temperature are damaged. Train the model again."
_SIDE = 1024  # maximum side of the input in pixels
_NODES = 5000  # maximum number of nodes; ConvNeXt XLarge has 500
_VALUES = 2**28  # maximum number of values (1 GiB) in memory for a batch
_WORK = 4e11  # maximum number of multiplications per image; enough for ConvNeXt XLarge at 500 pixels
_VALUE_COST = 100  # reading or writing one value takes as long as this number of multiplications
_CONSTANT = 1024  # maximum number of values in a constant that can affect shapes; larger ones are weights


class Head(NamedTuple):
    """The derivative of the logits with respect to the last feature map, for Grad-CAM.

    Attributes:
        slopes: float32 (C, K), the derivative of (logit of a class − mean of the other logits) with respect to each of
            the K pooled features, after the LayerNormalization if there is one.
        epsilon: epsilon of that LayerNormalization, or None if there is none.
        side: height and width of the last feature map.
    """

    slopes: np.ndarray
    epsilon: float | None
    side: int


class Network(Protocol):
    """A model for inference, in ONNX Runtime or Keras."""

    image_size: int
    head: Head

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities (N, C) and pooled features (N, D) for images, float32 (N, S, S, 3) in 0..255."""

    def last_map(self, images: np.ndarray) -> np.ndarray:
        """Return the last feature map before pooling, float32 (N, h, w, K)."""


class OnnxNetwork:
    """A `Network` that runs in ONNX Runtime.

    Args:
        path: a file written by `leaf.models.onnx_export`.

    Raises:
        LeafError: if the file is damaged or too large, stores values in other files, or has unexpected operators,
            inputs or outputs.
    """

    def __init__(self, path: str | Path) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime 1.32+ sends data to Microsoft
        import onnxruntime

        if (size := Path(path).stat().st_size) > LIMIT:
            raise LeafError(f"{path}: {size:,} bytes; valid: at most {LIMIT:,}")
        try:
            self.image_size, epsilon, values = _validated(Path(path).read_bytes())
            self._batch = _VALUES // values
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # do not print errors, because they are raised as exceptions
            options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
            # Idle threads that spin would slow down image decoding.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            blank = np.zeros((1, self.image_size, self.image_size, 3), np.float32)
            probabilities, features, last, slopes = self._run(blank, *OUTPUTS)
            if not (
                probabilities.ndim == features.ndim == slopes.ndim == 2
                and last.ndim == 4
                and slopes.shape == (probabilities.shape[1], last.shape[3])
                and len(probabilities) == len(features) == len(last) == min(last.shape[1], 1) == 1
            ):
                raise ValueError("unexpected output shapes")
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common class
            raise LeafError(
                f"{path}: not a valid model ({str(error)[:200]}). Use a model written by `dvc repro`."
            ) from None
        self.metadata = {
            key: json.loads(value) for key, value in self._session.get_modelmeta().custom_metadata_map.items()
        }
        self.head = Head(slopes, epsilon, last.shape[1])
        self.features = features.shape[1]

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities, features = self._run(images, "probabilities", "features")
        if not np.isfinite(probabilities).all():
            raise LeafError(NOT_FINITE)
        return probabilities.astype(np.float64), features

    def last_map(self, images: np.ndarray) -> np.ndarray:
        return self._run(images, "map")[0]

    def _run(self, images: np.ndarray, *names: str) -> list[np.ndarray]:
        """Return the outputs for images (N, S, S, 3), computed in batches that fit within the limit `_VALUES`."""
        starts = range(0, max(len(images), 1), self._batch)
        batches = [np.ascontiguousarray(images[start : start + self._batch], np.float32) for start in starts]
        try:
            parts = [self._session.run(names, {"images": batch}) for batch in batches]
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common class
            raise LeafError(f"the model cannot be run ({str(error)[:200]}). Run `dvc repro` to restore it.") from None
        return parts[0] if len(parts) == 1 else [np.concatenate(each) for each in zip(*parts, strict=True)]


def _validated(content: bytes) -> tuple[int, float | None, int]:
    """Check an ONNX file; return the image side, the head's epsilon, and the number of values in memory per image.

    Raises:
        ValueError: if the file contains something that the exporter never writes, or exceeds a limit.
    """
    import onnx

    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer:
        raise ValueError("contains functions, training information or sparse weights")
    if len(graph.node) > _NODES:
        raise ValueError(f"{len(graph.node)} nodes; valid: up to {_NODES}")
    for node in graph.node:
        if node.domain or node.op_type not in OPERATORS:
            raise ValueError(f"contains the operator {node.domain}:{node.op_type}"[:100])
        if any(each.HasField("g") or each.HasField("t") or each.graphs or each.tensors for each in node.attribute):
            raise ValueError(f"{node.op_type} contains a graph or a tensor")
    if any(each.external_data or each.data_location for each in graph.initializer):
        raise ValueError("stores values in other files")
    if len(graph.input) != 1 or [each.name for each in graph.output] != list(OUTPUTS):
        raise ValueError("unexpected inputs or outputs")
    _, *sides, channels = (each.dim_value for each in graph.input[0].type.tensor_type.shape.dim)
    if len(sides) != 2 or sides[0] != sides[1] or not 0 < sides[0] <= _SIDE or channels != 3:
        raise ValueError(f"the input is not a square image of up to {_SIDE} pixels")
    epsilon = {each.key: json.loads(each.value) for each in model.metadata_props}["epsilon"]
    return sides[0], None if epsilon is None else float(epsilon), _check_resources(graph, _shapes(model, sides[0]))


def _shapes(model: Any, side: int) -> dict[str, tuple[int, ...]]:
    """Infer the shape of each value for one image; raise ValueError if a shape is unknown."""
    from onnx import helper, shape_inference

    graph = model.graph
    constants = {each.name: tuple(each.dims) for each in graph.initializer}
    small = [each for each in graph.initializer if math.prod(each.dims) <= _CONSTANT]
    large = [each for each in graph.initializer if math.prod(each.dims) > _CONSTANT]
    inputs = [helper.make_tensor_value_info("images", 1, [1, side, side, 3])]
    inputs += [helper.make_tensor_value_info(each.name, each.data_type, each.dims) for each in large]
    outputs = [helper.make_tensor_value_info(name, 1, None) for name in OUTPUTS]
    # Infer the shapes on a copy without large weights, because shape inference serializes the model.
    small_copy = helper.make_graph(graph.node, "graph", inputs, outputs, small)
    bare = helper.make_model(small_copy, opset_imports=model.opset_import, ir_version=model.ir_version)
    inferred = shape_inference.infer_shapes(bare, strict_mode=True).graph
    found = {
        each.name: tuple(dim.dim_value for dim in each.type.tensor_type.shape.dim)
        for each in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    for name in (output for node in graph.node for output in node.output):
        if any(side <= 0 for side in found.get(name, (0,))):
            raise ValueError(f"the shape of {name} is unknown"[:100])
    return found | constants


def _check_resources(graph: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Return the maximum number of values in memory; raise ValueError if memory or computation exceeds its limit."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    last = {name: number for number, node in enumerate(graph.node) for name in node.input}
    constants = {each.name for each in graph.initializer}
    work, held, most = 0, sizes["images"], 0
    for number, node in enumerate(graph.node):
        held += sum(sizes[name] for name in node.output)
        most = max(most, held)
        work += _multiplications(node, shapes, sizes)
        held -= sum(sizes[name] for name in set(node.input) - constants if last[name] == number and name)
    if most > _VALUES:
        raise ValueError(f"requires {most:,} values in memory; valid: up to {_VALUES:,}")
    if work > _WORK:
        raise ValueError(f"requires {work:.1e} multiplications per image; valid: up to {_WORK:.0e}")
    return most


def _multiplications(node: Any, shapes: dict[str, tuple[int, ...]], sizes: dict[str, int]) -> int:
    """Return the cost of a node in multiplications.

    For operators other than MatMul and convolutions, the cost is `_VALUE_COST` per value read or written.
    """
    written = sum(sizes[name] for name in node.output)
    if node.op_type == "MatMul":
        return written * shapes[node.input[0]][-1]
    if node.op_type in ("Conv", "ConvTranspose"):
        moved = written if node.op_type == "Conv" else sizes[node.input[0]]
        return moved * math.prod(shapes[node.input[1]][1:])
    window = next((each.ints for each in node.attribute if each.name == "kernel_shape"), ())
    return _VALUE_COST * (written * math.prod(window) + sum(sizes[name] for name in node.input if name))


def metadata(facts: Mapping[str, Any]) -> Metadata:
    """Select the metadata that other programs need to reproduce predictions with an ONNX or LiteRT file.

    The model itself applies the temperature and softmax. The caller must apply `threshold` (None for more than two
    classes), `min_confidence` and `views`.
    """
    names = (
        *("classes", "threshold", "temperature", "min_confidence", "views", "image_size", "fit"),
        *("backbone", "test_accuracy", "model_sha256"),
    )
    selected = {name: facts[name] for name in names} | {"classes": list(facts["classes"])}
    return selected if len(facts["classes"]) == 2 else selected | {"threshold": None}


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the softmax of `logits` (N, C) / `temperature`, float64, without overflow.

    Raises:
        LeafError: if a logit is NaN or infinite.
    """
    scaled = logits.astype(np.float64) / temperature
    if not np.isfinite(scaled).all():
        raise LeafError(NOT_FINITE)
    if scaled.shape[1] == 2:  # tanh is accurate near 0 and 1, and the sum is exactly 1
        second = (1 + np.tanh((scaled[:, 1] - scaled[:, 0]) / 2)) / 2
        return np.stack([1 - second, second], axis=1)
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def probabilities(network: Network, images: np.ndarray, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (N, C), averaged over `views` views, and features (N, D) for float32 images (N, S, S, 3)."""
    total, features = network.predict(images)
    for number in range(1, views):
        total = total + network.predict(tta_view(images, number))[0]
    return total / views, features
