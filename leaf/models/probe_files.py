"""Write a linear probe's files without Keras, from the files of an earlier probe with the same frozen backbone.

Two such probes differ only in the head, even if they have different classes. `ProbeFiles` replaces the head in copies
of the earlier `.keras` and ONNX files. The new files are byte-identical to those that Keras and
`leaf.models.onnx_export` would write.
"""

import hashlib
import io
import json
import os
import platform
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np

from leaf import store
from leaf.errors import LeafError
from leaf.models import backbones
from leaf.models.feature_cache import enforce_limit, stored_features
from leaf.models.onnx_inference import OUTPUTS, TOLERANCE, OnnxNetwork, softmax
from leaf.models.weights import check_weights_file, checkpoint_name

EPSILON = 1e-3  # epsilon of Keras's BatchNormalization
KEYS = "probes"  # cache that maps the SHA-256 of a probe's .keras file to its `probe_key`
_CACHE = "features"  # probe files count toward this cache's size limit
_PACKAGES = ("keras", "tensorflow", "jax", "torch", "numpy", "h5py", "onnx")
_WEIGHTS = "model.weights.h5"


@dataclass(frozen=True)
class LinearHead:
    """Weights of the BatchNormalization and logits layers of a classifier.

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

        If `scale` (D,) is given, the features are multiplied by `scale` before the head.
        """
        gamma, _, _, variance = self.normalization
        others = (self.kernel.sum(axis=1, keepdims=True) - self.kernel) / (self.kernel.shape[1] - 1)
        slopes = gamma / np.sqrt(variance + EPSILON) * (self.kernel - others).T
        return slopes if scale is None else slopes * scale

    @classmethod
    def read(cls, path: Path) -> "LinearHead":
        """Read the head from a classifier's `.keras` file."""
        with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read(_WEIGHTS))) as arrays:
            groups = _groups(json.loads(archive.read("config.json")))
            normalization, dense = (arrays[groups[name]]["vars"] for name in ("batch_normalization", "dense"))
            return cls(tuple(normalization[str(number)][()] for number in range(4)), dense["0"][()], dense["1"][()])

    @property
    def parameters(self) -> tuple[int, int]:
        """Number of trainable parameters and total number of parameters."""
        width = len(self.kernel)
        trainable = 2 * width + self.kernel.size + self.bias.size
        return trainable, trainable + 2 * width


def probe_key(params: Any) -> str | None:
    """Return a hash of everything that determines a probe's files except its head.

    Return None if a checkpoint is not pinned by SHA-256, because its weights may change.

    Raises:
        LeafError: if the weights file is missing or has the wrong SHA-256.
    """
    if backbones.is_weights_file(params.weights):
        check_weights_file(Path(params.weights), params.weights_sha256)
    elif checkpoint_name(params.backbone, params.weights) and not params.weights_sha256:
        return None
    parts = [
        {name: getattr(params, name) for name in backbones.BUILD_PARAMS},
        _versions(),
        platform.python_version(),
        [os.environ.get(name) for name in ("KERAS_BACKEND", "CUDA_VISIBLE_DEVICES")],
        [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.py"))],
    ]
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def save_probe_file(key: str, source: str | Path, facts: Mapping[str, Any]) -> None:
    """Cache a probe's `.keras` or ONNX file with `facts` for later probes. Errors, such as a full disk, are ignored."""
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
            config = json.loads(earlier.read("config.json"))
            groups = _groups(config)
            new = {f"{groups['batch_normalization']}/{number}": each for number, each in enumerate(head.normalization)}
            new |= {f"{groups['dense']}/0": head.kernel, f"{groups['dense']}/1": head.bias}
            dense = next(layer for layer in config["config"]["layers"] if layer["name"] == "dense")
            dense["config"]["units"] = len(head.bias)
            with store.replacing(path) as partial, tempfile.TemporaryDirectory(dir=partial.parent) as folder:
                weights = Path(folder) / _WEIGHTS
                _write_weights(earlier.read(weights.name), groups.values(), new, weights)
                changed = {
                    "config.json": json.dumps(config, sort_keys=True).encode(),
                    weights.name: weights.read_bytes(),
                }
                with zipfile.ZipFile(partial, "w") as archive:
                    for entry in earlier.infolist():
                        content = changed.get(entry.filename, earlier.read(entry))
                        archive.writestr(zip_entry(entry.filename), content)

    def write_onnx(
        self, head: LinearHead, metadata: Mapping[str, Any], images: np.ndarray, features: np.ndarray, path: str | Path
    ) -> str:
        """Write an ONNX file with this head; see `leaf.models.onnx_export.write` for the metadata and the result.

        The probabilities of `images`, (N, S, S, 3) in 0..255, are compared with those from `features`, (N, D).
        """
        import onnx
        from onnx import helper, numpy_helper

        model = onnx.ModelProto.FromString(self._onnx)
        scale = self.facts["slopes_scale"]
        arrays = [*head.normalization, head.kernel, head.bias, 1 / metadata["temperature"]]
        arrays.append(head.slopes(None if scale is None else np.array(scale, np.float32)))
        for tensor, array in zip(model.graph.initializer[-len(arrays) :], arrays, strict=True):
            tensor.CopyFrom(numpy_helper.from_array(np.array(array, np.float32, order="C"), tensor.name))
        outputs = dict(zip(OUTPUTS, model.graph.output, strict=True))
        for name, axis in (("probabilities", 1), ("slopes", 0)):
            outputs[name].type.tensor_type.shape.dim[axis].dim_value = len(head.bias)
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
                return f"the ONNX output `probabilities` differs from Keras by {difference:.1g}"
        return ""


def find_probe_files(key: str | None) -> ProbeFiles | None:
    """Return the files of an earlier probe with this `probe_key`, or None if they are missing or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError, LeafError):
        return ProbeFiles(key) if key else None
    return None


def zip_entry(name: str) -> zipfile.ZipInfo:
    """Return an entry of a `.keras` file, with a fixed date so that equal models give equal files."""
    entry = zipfile.ZipInfo(name)  # with the default date, 1980-01-01
    entry.external_attr = 0o644 << 16
    return entry


def _groups(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a mapping from each layer or operation name to its group in Keras's weights file, in model order."""
    counts: Counter[str] = Counter()
    groups = {}
    for layer in config["config"]["layers"]:
        kind = snake_case(layer["class_name"])
        groups[layer["name"]] = f"layers/{kind}_{counts[kind]}" if counts[kind] else f"layers/{kind}"
        counts[kind] += 1
    return groups


def _write_weights(earlier: bytes, groups: Iterable[str], new: Mapping[str, np.ndarray], path: Path) -> None:
    """Copy the weights of a `.keras` file with the arrays in `new` replaced, using the same calls as `H5IOStore`.

    HDF5 stores objects in the order of the calls, so the model is written first, then its layers.
    """
    with h5py.File(io.BytesIO(earlier)) as source, h5py.File(path, "w") as target:
        _copy_weights(source, target, "", new)
        for name in groups:
            if name in source:  # an operation that is not a layer has no group
                _copy_weights(source, target, name, new)


def _copy_weights(source: h5py.File, target: h5py.File, name: str, new: Mapping[str, np.ndarray]) -> None:
    group = target.create_group(name).create_group("vars") if name else target.create_group("vars")
    earlier = source[f"{name}/vars"]
    for key, value in earlier.attrs.items():
        group.attrs[key] = value
    for key in sorted(earlier, key=int):
        group[key] = new.get(f"{name}/{key}", earlier[key][()])
    for part in source[name] if name else ():
        if part != "vars":
            _copy_weights(source, target, f"{name}/{part}", new)


def snake_case(name: str) -> str:
    """Convert a class name to Keras's snake case: `GlobalAveragePooling2D` becomes `global_average_pooling2d`."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
