"""Write a linear probe's files without Keras, from the files of an earlier probe with the same frozen backbone.

The two probes differ only in the head. `ProbeFiles` replaces the head's arrays in copies of the earlier `.keras` and
ONNX files. The new files are byte-identical to those that Keras and `leaf.models.onnx_export` would write.
"""

import hashlib
import io
import json
import os
import platform
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np

from leaf import store
from leaf.errors import LeafError
from leaf.models import backbones
from leaf.models.feature_cache import enforce_limit, stored_features
from leaf.models.onnx_inference import TOLERANCE, OnnxNetwork, softmax

EPSILON = 1e-3  # epsilon of Keras's BatchNormalization
KEYS = "probes"  # cached values: `probe_key` by the SHA-256 of a probe's .keras file
_CACHE = "features"  # probe files count toward this cache's size limit
_PACKAGES = ("keras", "tensorflow", "jax", "torch", "numpy", "h5py", "onnx")
_WEIGHTS = "model.weights.h5"


@dataclass(frozen=True)
class LinearHead:
    """The BatchNormalization and logits layers of a classifier.

    Attributes:
        normalization: gamma, beta, mean and variance, each float32 (D,).
        kernel: float32 (D, C).
        bias: float32 (C,).
    """

    normalization: tuple[np.ndarray, ...]
    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the logits, float32 (N, C), for features, float32 (N, D)."""
        gamma, beta, mean, variance = self.normalization
        return ((features - mean) / np.sqrt(variance + EPSILON) * gamma + beta) @ self.kernel + self.bias

    def slopes(self, scale: np.ndarray | None = None) -> np.ndarray:
        """Return the derivative (C, D) of (logit of a class − mean of the other logits) with respect to features.

        With `scale` (D,), the features are multiplied by it before the head.
        """
        gamma, _, _, variance = self.normalization
        others = (self.kernel.sum(axis=1, keepdims=True) - self.kernel) / (self.kernel.shape[1] - 1)
        slopes = gamma / np.sqrt(variance + EPSILON) * (self.kernel - others).T
        return slopes if scale is None else slopes * scale

    @classmethod
    def read(cls, path: Path) -> "LinearHead":
        """Read the head from a classifier's `.keras` file."""
        with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read(_WEIGHTS))) as file:
            *normalization, kernel, bias = (array[()] for array in _head_arrays(file))
            return cls(tuple(normalization), kernel, bias)


def _head_arrays(file: h5py.File) -> list[h5py.Dataset]:
    """Return the arrays of a `LinearHead` in Keras's weights file, in the order of its fields."""
    layers = {layer["vars"].attrs["name"]: layer["vars"] for layer in file["layers"].values()}
    normalization, dense = layers["batch_normalization"], layers["dense"]
    return [*(normalization[str(number)] for number in range(4)), *(dense[str(number)] for number in range(2))]


def probe_key(params: Any, classes: int) -> str | None:
    """Return a hash of everything that determines a probe's files, except its head; None if the weights may change.

    Raises:
        LeafError: if the weights file is missing or has the wrong SHA-256.
    """
    if backbones.is_weights_file(params.weights):
        backbones.check_weights_file(Path(params.weights), params.weights_sha256)
    elif backbones.checkpoint_name(params.backbone, params.weights) and not params.weights_sha256:
        return None
    parts = [
        {name: getattr(params, name) for name in backbones.BUILD_PARAMS} | {"classes": classes},
        {each.name: each.version for each in distributions() if each.name in _PACKAGES},
        platform.python_version(),
        [os.environ.get(name) for name in ("KERAS_BACKEND", "CUDA_VISIBLE_DEVICES")],
        [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))],
    ]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def save_probe_file(key: str, source: str | Path, facts: Mapping[str, Any]) -> None:
    """Save a probe's `.keras` or ONNX file for later probes, with `facts` about it, unless the disk is full."""
    source = Path(source)
    with suppress(OSError):
        folder = store.cache_folder(_CACHE) / key
        with store.replacing(folder / source.name) as partial:
            partial.write_bytes(source.read_bytes())
        store.write_json({**facts, "sha256": store.sha256(source)}, folder / f"{source.name}.json")
    enforce_limit()


class ProbeFiles:
    """The files of an earlier probe; see `find_probe_files`.

    Attributes:
        facts: the `facts` passed to `save_probe_file` with the `.keras` file.
    """

    def __init__(self, key: str) -> None:
        self._folder = store.cache_folder(_CACHE) / key
        self.facts, self._keras = self._read("model.keras")
        _, self._onnx = self._read("model.onnx")

    def _read(self, name: str) -> tuple[dict[str, Any], bytes]:
        facts, content = store.read_json(self._folder / f"{name}.json"), (self._folder / name).read_bytes()
        (self._folder / name).touch()
        if hashlib.sha256(content).hexdigest() != facts["sha256"]:
            raise ValueError(f"{name} is damaged")
        return facts, content

    def features(self, images: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the cached features for `rows` of `images`; see `stored_features`."""
        return stored_features(self.facts["backbone_key"], self.facts["features"], images, rows)

    def write_model(self, head: LinearHead, path: str | Path) -> None:
        """Write a `.keras` file with the backbone of the earlier probe and this head."""
        with zipfile.ZipFile(io.BytesIO(self._keras)) as earlier:
            weights = io.BytesIO(earlier.read(_WEIGHTS))
            with h5py.File(weights, "r+") as file:
                for array, new in zip(_head_arrays(file), [*head.normalization, head.kernel, head.bias], strict=True):
                    array[...] = new
            with store.replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
                for entry in earlier.infolist():
                    content = weights.getvalue() if entry.filename == _WEIGHTS else earlier.read(entry)
                    archive.writestr(entry, content)

    def write_onnx(
        self, head: LinearHead, metadata: Mapping[str, Any], images: np.ndarray, features: np.ndarray, path: str | Path
    ) -> str:
        """Write an ONNX file with this head, and check that its probabilities match the head's.

        Args:
            head: the new head.
            metadata: see `leaf.models.onnx_export.write`.
            images: (N, S, S, 3) in 0..255, for the comparison.
            features: their cached features, (N, D).
            path: file to write.

        Returns:
            "", or the reason why the file is empty.
        """
        import onnx
        from onnx import helper, numpy_helper

        model = onnx.ModelProto.FromString(self._onnx)
        scale = self.facts["slopes_scale"]
        arrays = [*head.normalization, head.kernel, head.bias, 1 / metadata["temperature"]]
        arrays.append(head.slopes(None if scale is None else np.array(scale, np.float32)))
        for tensor, array in zip(model.graph.initializer[-len(arrays) :], arrays, strict=True):
            tensor.CopyFrom(numpy_helper.from_array(np.array(array, np.float32, order="C"), tensor.name))
        epsilon = next(each.value for each in model.metadata_props if each.key == "epsilon")
        properties = {name: json.dumps(value) for name, value in metadata.items()} | {"epsilon": epsilon}
        del model.metadata_props[:]
        helper.set_model_props(model, properties)
        with store.replacing(path) as partial:
            partial.write_bytes(model.SerializeToString())
            found = OnnxNetwork(partial).predict(np.asarray(images, np.float32))[0]
            wanted = softmax(head.logits(features), metadata["temperature"])
            if (difference := float(np.abs(found - wanted).max(initial=0))) > TOLERANCE:
                partial.write_bytes(b"")
                return f"its probabilities differ from Keras by {difference:.1g}"
        return ""


def find_probe_files(key: str | None) -> ProbeFiles | None:
    """Return the files of an earlier probe with this `probe_key`, or None if they are missing or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError, LeafError):
        return ProbeFiles(key) if key else None
    return None
