"""Answers of a network without Keras: models/model.onnx in ONNX Runtime, views averaged, heat maps.

`leaf.models.onnx_export` writes the file. Where it cannot hold a network, `leaf.models` gives the same from Keras.
"""

import io
import json
import os
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from PIL import Image

from leaf.errors import LeafError

OUTPUTS = ("probabilities", "features", "map", "slopes")
# fmt: off
OPERATORS = frozenset({
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Flatten", "Gather",
    "Gelu", "Identity", "LayerNormalization", "LeakyRelu", "Log", "MatMul", "MaxPool", "Mul",
    "Pad", "ReduceMean", "Relu", "Reshape", "Resize", "Sigmoid", "Softmax", "Sub", "Tanh", "TopK", "Transpose",
})  # all that the writer uses: none runs code, reads a file or loops
# fmt: on
LIMIT = 2**31 - 1  # bytes; protobuf holds no more
_LARGEST = 4096  # pixels of an image's side


class Head(NamedTuple):
    """What leads from the average of the last map to the logits, for heat maps.

    Attributes:
        slopes: float32 (C, K): how a class's logit less the mean of the others' grows with each of the K averages,
            behind a LayerNormalization if there is one.
        epsilon: of that LayerNormalization; None where there is none.
        side: of the last map.
    """

    slopes: np.ndarray
    epsilon: float | None
    side: int


class Network(Protocol):
    """A network that answers, in ONNX Runtime or in Keras."""

    image_size: int
    head: Head

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images, float32 (N, S, S, 3) in 0..255, to probabilities (N, C) and pooled features (N, D)."""

    def last_map(self, images: np.ndarray) -> np.ndarray:
        """The same images to the last map before the pooling, float32 (N, h, w, K)."""


class OnnxNetwork:
    """A `Network` in ONNX Runtime.

    Args:
        path: a file that `leaf.models.onnx_export` wrote.

    Raises:
        LeafError: where the file is no such network: damaged, too large, with other operators, inputs or outputs, or
            with values in other files.
    """

    def __init__(self, path: str | Path) -> None:
        import onnxruntime

        if (size := Path(path).stat().st_size) > LIMIT:
            raise LeafError(f"{path}: {size} bytes; valid: up to {LIMIT}")
        try:
            self.image_size, epsilon = _checked(Path(path).read_bytes())
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 4  # what fails raises, too
            options.intra_op_num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
            # A thread that waits for work by spinning takes the core from those that decode photographs.
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
                raise ValueError("its outputs have other shapes")
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors have no common class
            reason = " ".join(str(error).split())[:200]
            raise LeafError(f"{path}: not a network that `dvc repro` wrote ({reason})") from None
        self.head = Head(slopes, epsilon, last.shape[1])
        self.features = features.shape[1]  # how many

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities, features = self._run(images, "probabilities", "features")
        if not np.isfinite(probabilities).all():
            raise LeafError(NOT_FINITE)
        return probabilities.astype(np.float64), features

    def last_map(self, images: np.ndarray) -> np.ndarray:
        return self._run(images, "map")[0]

    def _run(self, images: np.ndarray, *names: str) -> list[np.ndarray]:
        return self._session.run(names, {"images": np.ascontiguousarray(images, np.float32)})


NOT_FINITE = "the network gives NaN or infinite logits; its weights or its temperature are damaged, train it again"


def _checked(content: bytes) -> tuple[int, float | None]:
    """Refuse what the writer does not write; give the side of the images and the head's epsilon."""
    import onnx

    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer:
        raise ValueError("it holds functions")
    for node in graph.node:
        if node.domain or node.op_type not in OPERATORS:
            raise ValueError(f"it has the operator {node.domain}:{node.op_type}"[:100])
        if any(each.HasField("g") or each.HasField("t") or each.graphs or each.tensors for each in node.attribute):
            raise ValueError(f"{node.op_type} holds a graph or a tensor")
    if any(each.external_data or each.data_location for each in graph.initializer):
        raise ValueError("its values lie in other files")
    if len(graph.input) != 1 or [each.name for each in graph.output] != list(OUTPUTS):
        raise ValueError("it has other inputs or outputs")
    _, *sides, channels = (each.dim_value for each in graph.input[0].type.tensor_type.shape.dim)
    if len(sides) != 2 or sides[0] != sides[1] or not 0 < sides[0] <= _LARGEST or channels != 3:
        raise ValueError("it takes no square image")
    told = {each.key: json.loads(each.value) for each in model.metadata_props}
    epsilon = told["epsilon"]
    return sides[0], None if epsilon is None else float(epsilon)


def probabilities(network: Network, images: np.ndarray, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Average the probabilities of `views` views of images, float32 (N, S, S, 3): (N, C), with the features (N, D)."""
    total, features = network.predict(images)
    for number in range(1, views):
        total = total + network.predict(tta_view(images, number))[0]
    return total / views, features


MAX_VIEWS = 16
_CROPPED = 7 / 8  # side of a crop, of the whole side


def tta_view(images: np.ndarray, number: int) -> np.ndarray:
    """Give view `number` of square images for test-time augmentation.

    0 is the image; 1 to 7 its mirror images and quarter turns; 8 to 12 crops of 7/8 of the side (the middle, the
    four corners), enlarged to the whole; 13 to 15 the first crops mirrored.

    Args:
        images: float32 (N, S, S, 3).
        number: 0 to 15.

    Returns:
        float32 (N, S, S, 3).
    """
    if number < 8:
        turned = images.transpose(0, 2, 1, 3) if number & 4 else images
        return np.ascontiguousarray(turned[:, :: -1 if number & 2 else 1, :: -1 if number & 1 else 1])
    corner = (number - 8) % len(_CORNERS)
    cropped = _crop(images, *_CORNERS[corner])
    return np.ascontiguousarray(cropped[:, :, ::-1]) if number - 8 >= len(_CORNERS) else cropped


_CORNERS = [(0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)]


def _crop(images: np.ndarray, vertical: float, horizontal: float) -> np.ndarray:
    size = images.shape[1]
    side = max(1, round(size * _CROPPED))
    top, left = round((size - side) * vertical), round((size - side) * horizontal)
    return _resized(images[:, top : top + side, left : left + side], size)


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """Resize (N, h, w, C) or (N, h, w) to (N, size, size, …), bilinear."""
    made = np.empty((len(images), size, size, *images.shape[3:]), np.float32)
    for place, image in enumerate(images):
        wide = cv2.resize(np.ascontiguousarray(image, np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
        made[place] = wide.reshape(made[place].shape)  # OpenCV drops the axis of a single channel
    return made


_STRIDE = 8  # pixels between the shifted copies whose coarse maps make one fine map


def heatmaps(network: Network, images: np.ndarray, shown: np.ndarray | None = None) -> np.ndarray:
    """Show for each image where the network saw a class rather than the others.

    Grad-CAM (Selvaraju 2017, arXiv 1610.02391), its gradient in closed form: behind the average pooling there are only
    a LayerNormalization (ConvNeXt's), the BatchNormalization and the Dense layer. The last map is coarse (3×3 of a
    96×96 image at most backbones), so the image is also shown shifted by multiples of 8 pixels; the maps are shifted
    back and averaged. Of a detector the map is its reconstruction error.

    Args:
        network: in ONNX Runtime or Keras.
        images: float32 (N, S, S, 3), 0..255.
        shown: the label of each image's class, int (N,); the likeliest unless given.

    Returns:
        float32 (N, S, S), 0 to 1; the largest value of an image is 1, or all are 0 where nothing was seen of the class.
    """
    labels = network.predict(images)[0].argmax(axis=1) if shown is None else shown
    size = images.shape[1]
    total = np.zeros(images.shape[:3], np.float32)
    shifts = _shifts(size // network.head.side)
    for down in shifts:
        for right in shifts:
            last = network.last_map(_shifted(images, down, right))
            coarse = np.einsum("nhwk,nk->nhw", last, gradient(network.head, last.mean((1, 2)), labels))
            total += _shifted(_resized(coarse, size)[..., None], -down, -right)[..., 0]
    maps = np.maximum(total, 0)
    peak = maps.max((1, 2), keepdims=True)
    return np.divide(maps, peak, out=np.zeros_like(maps), where=peak > 0)


def gradient(head: Head, mean: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Differentiate (a label's logit − the others' mean) by the last map's average `mean` (N, K): float (N, K)."""
    slope = head.slopes[labels]
    if head.epsilon is None:
        return slope
    deviation = np.sqrt(mean.var(1, keepdims=True) + head.epsilon)
    standard = (mean - mean.mean(1, keepdims=True)) / deviation
    return (slope - slope.mean(1, keepdims=True) - standard * (standard * slope).mean(1, keepdims=True)) / deviation


def _shifts(cell: int) -> list[int]:
    """Offsets in pixels, evenly over one cell of the last map, around 0."""
    steps = max(1, cell // _STRIDE)
    return [round((step - (steps - 1) / 2) * cell / steps) for step in range(steps)]


def _shifted(images: np.ndarray, down: int, right: int) -> np.ndarray:
    """Give images (N, H, W, C) moved up by `down` and left by `right` pixels, the border repeated."""
    rows = np.clip(np.arange(images.shape[1]) + down, 0, images.shape[1] - 1)
    columns = np.clip(np.arange(images.shape[2]) + right, 0, images.shape[2] - 1)
    return images[:, rows][:, :, columns]


HEATED_SIDE = 288
"""Side in pixels, at least, of a heat map's picture; the network's own images are too small to look at."""

_INFERNO = np.array(  # from the coldest to the hottest (Smith and van der Walt 2015)
    [[0, 0, 4], [66, 10, 104], [147, 38, 103], [221, 81, 58], [252, 165, 10], [252, 255, 164]], np.float64
)


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Blend a heat map (h, w) in 0..1 over (H, W, 3) uint8 pixels; hotter is more opaque."""
    height, width = pixels.shape[:2]
    finite = np.nan_to_num(np.asarray(heat, np.float32), nan=0.0)
    soft = Image.fromarray(finite).resize((width, height), Image.Resampling.BICUBIC)
    level = np.clip(np.asarray(soft, np.float64), 0, 1)
    at = np.linspace(0, 1, len(_INFERNO))
    colour = np.stack([np.interp(level, at, _INFERNO[:, channel]) for channel in range(3)], axis=-1)
    opacity = (0.35 + 0.4 * level)[..., None]
    grey = pixels.astype(np.float64).mean(-1, keepdims=True)
    return np.clip(grey * (1 - opacity) + colour * opacity, 0, 255).astype(np.uint8)


def heatmap_png(pixels: np.ndarray, heat: np.ndarray) -> bytes:
    """`overlay` as a PNG file, a whole multiple of the size of `pixels`, (S, S, 3) in 0..255; `heat` (h, w) in 0..1."""
    scale = max(1, -(-HEATED_SIDE // len(pixels)))
    size = (pixels.shape[1] * scale, pixels.shape[0] * scale)
    enlarged = Image.fromarray(np.asarray(pixels, np.uint8)).resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    Image.fromarray(overlay(np.asarray(enlarged), heat)).save(file, "PNG")
    return file.getvalue()
