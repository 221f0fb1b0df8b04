"""Inference with ONNX Runtime, without Keras. `leaf.models.onnx_export` writes the files."""

import json
import os
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from leaf.errors import LeafError
from leaf.models.tta import tta_view

OUTPUTS = ("probabilities", "features", "map", "slopes")
# fmt: off
OPERATORS = frozenset({
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Flatten", "Gather",
    "Gelu", "Identity", "LayerNormalization", "LeakyRelu", "Log", "MatMul", "MaxPool", "Mul", "Pad",
    "ReduceL2", "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Softmax", "Sub", "Tanh", "TopK", "Transpose",
})  # the operators that the exporter writes: none runs code, reads a file or loops
# fmt: on
LIMIT = 2**31 - 1  # bytes; the limit of protobuf
NOT_FINITE = "the model gives NaN or infinite logits: its weights or its temperature are damaged. Train it again."
_MAX_SIDE = 4096  # pixels


class Head(NamedTuple):
    """The map from the pooled last feature map to the logits, for Grad-CAM.

    Attributes:
        slopes: float32 (C, K): derivative of (logit of a class − mean of the other logits) with respect to each of the
            K pooled values, after the LayerNormalization if there is one.
        epsilon: of that LayerNormalization; None without one.
        side: of the last feature map.
    """

    slopes: np.ndarray
    epsilon: float | None
    side: int


class Network(Protocol):
    """A model for inference, in ONNX Runtime or Keras."""

    image_size: int
    head: Head

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return probabilities (N, C) and pooled features (N, D) of images, float32 (N, S, S, 3) in 0..255."""

    def last_map(self, images: np.ndarray) -> np.ndarray:
        """Return the last feature map before pooling, float32 (N, h, w, K)."""


class OnnxNetwork:
    """A `Network` in ONNX Runtime.

    Args:
        path: a file written by `leaf.models.onnx_export`.

    Raises:
        LeafError: if the file is damaged, too large, stores values in other files, or has unexpected operators, inputs
            or outputs.
    """

    def __init__(self, path: str | Path) -> None:
        import onnxruntime

        if (size := Path(path).stat().st_size) > LIMIT:
            raise LeafError(f"{path}: {size} bytes; valid: up to {LIMIT}")
        try:
            self.image_size, epsilon = _validated(Path(path).read_bytes())
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # errors are raised as well
            options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
            # Spinning threads would take CPU time from the decoding of images.
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
            reason = " ".join(str(error).split())[:200]
            raise LeafError(f"{path}: not a model written by `dvc repro` ({reason})") from None
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
        return self._session.run(names, {"images": np.ascontiguousarray(images, np.float32)})


def _validated(content: bytes) -> tuple[int, float | None]:
    """Return the image side and the head's epsilon; raise ValueError for anything the exporter does not write."""
    import onnx

    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer:
        raise ValueError("contains functions")
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
    if len(sides) != 2 or sides[0] != sides[1] or not 0 < sides[0] <= _MAX_SIDE or channels != 3:
        raise ValueError("the input is not a square image")
    epsilon = {each.key: json.loads(each.value) for each in model.metadata_props}["epsilon"]
    return sides[0], None if epsilon is None else float(epsilon)


def probabilities(network: Network, images: np.ndarray, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (N, C) averaged over `views` views, and features (N, D), of float32 images (N, S, S, 3)."""
    total, features = network.predict(images)
    for number in range(1, views):
        total = total + network.predict(tta_view(images, number))[0]
    return total / views, features
