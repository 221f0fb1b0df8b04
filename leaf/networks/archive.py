"""Check a `.keras` file before Keras reads it: known classes and plain arrays, nothing that could run or reach out.

Keras's own `safe_mode` refuses Lambda layers, but still imports modules and calls classes that a file names. So each
class in the configuration must stand in a list here, and the file of arrays may hold no link to another file.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]

from leaf.errors import LeafError

_ENTRIES = {"metadata.json", "config.json", "model.weights.h5"}
_CONFIG_LIMIT = 32 << 20  # bytes; ConvNeXt XLarge's configuration has a few hundred thousand

_LAYERS = (
    *("Activation", "Add", "AveragePooling2D", "BatchNormalization", "Conv2D", "Conv2DTranspose", "Dense"),
    *("DepthwiseConv2D", "Dropout", "Flatten", "GlobalAveragePooling2D", "InputLayer", "LayerNormalization"),
    *(
        "LeakyReLU",
        "MaxPooling2D",
        "Multiply",
        "ReLU",
        "Rescaling",
        "Reshape",
        "SeparableConv2D",
        "Subtract",
        "UpSampling2D",
    ),
    "ZeroPadding2D",
)
_INITIALIZERS = (
    *("Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Ones", "Orthogonal", "RandomNormal"),
    *("RandomUniform", "TruncatedNormal", "VarianceScaling", "Zeros"),
)
_OURS = {
    "CaffePreprocessing": "leaf.networks.layers",
    "LayerScale": "leaf.networks.layers",
    "ReconstructionScore": "leaf.networks.detecting",
    "Residual": "leaf.networks.detecting",
    "ScoreLogits": "leaf.networks.detecting",
    "SpectralConv2D": "leaf.networks.spectral",
}
_KNOWN = (
    {("keras.layers", name, None) for name in _LAYERS}
    | {("keras.initializers", name, None) for name in _INITIALIZERS}
    | {("keras", "Sequential", None), ("keras", "DTypePolicy", None)}
    | {("keras.src.models.functional", "Functional", "Functional"), ("keras.src.ops.numpy", "Add", "Add")}
    | {(module, name, f"leaf>{name}") for name, module in _OURS.items()}
)
# A plain string names a function here; one that another library registered is not for a file to call.
_FUNCTIONS = ("activation", "initializer", "regularizer", "constraint")
_ACTIVATIONS = {"linear", "relu", "relu6", "gelu", "silu", "swish", "sigmoid", "tanh", "softmax", "leaky_relu"}


def check(path: Path) -> None:
    """Refuse a `.keras` file that holds more than a network of ours. Raises LeafError with the first reason."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(path, archive)
            config = json.loads(archive.read("config.json"))
            _check_config(path, config)
            with archive.open("model.weights.h5") as stream, h5py.File(stream, "r") as arrays:
                _check_arrays(path, arrays, set())
    except (zipfile.BadZipFile, ValueError, OSError, KeyError, RuntimeError, NotImplementedError, RecursionError) as e:
        raise LeafError(f"{path}: not a readable .keras file ({e})") from None


def _check_entries(path: Path, archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    found = [entry.filename for entry in entries]
    if sorted(found) != sorted(_ENTRIES):
        raise LeafError(f"{path}: holds {', '.join(sorted(found)[:5])}; valid: {', '.join(sorted(_ENTRIES))}")
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise LeafError(f"{path}: {entry.filename} is compressed; valid: stored as it is, as `train` writes it")
        if entry.filename.endswith(".json") and entry.file_size > _CONFIG_LIMIT:
            raise LeafError(f"{path}: {entry.filename} has {entry.file_size} bytes; valid: up to {_CONFIG_LIMIT}")


def _check_config(path: Path, node: Any, key: str = "") -> None:
    if isinstance(node, dict):
        if "class_name" in node:
            _check_class(path, node)
        for name, value in node.items():
            _check_config(path, value, name)
    elif isinstance(node, list):
        for value in node:
            _check_config(path, value, key)
    elif isinstance(node, str) and key.endswith(_FUNCTIONS) and node not in _ACTIVATIONS:
        raise LeafError(f"{path}: names {node!r} as {key}; valid: {', '.join(sorted(_ACTIVATIONS))}")


def _check_class(path: Path, node: dict[str, Any]) -> None:
    if node["class_name"] == "__keras_tensor__" and set(node) == {"class_name", "config"}:
        return
    named = (node.get("module"), node["class_name"], node.get("registered_name"))
    try:
        known = named in _KNOWN
    except TypeError:  # a list or mapping where a name belongs
        known = False
    if not known:
        module, name, registered = (str(part)[:80] for part in named)
        more = f" (registered as {registered})" if registered not in ("None", name) else ""
        raise LeafError(f"{path}: names the class {module}.{name}{more}; valid: a network that `train` saved")


def _check_arrays(path: Path, group: h5py.Group, seen: set[int]) -> None:
    address = h5py.h5o.get_info(group.id).addr
    if address in seen:
        raise LeafError(f"{path}: its arrays link in a circle")
    seen.add(address)
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise LeafError(f"{path}: its array {name} is a link; valid: arrays alone")
        value = group[name]
        if isinstance(value, h5py.Group):
            _check_arrays(path, value, seen)
        elif not _plain(value):
            raise LeafError(f"{path}: its array {name} is not plain numbers; valid: a network that `train` saved")


def _plain(value: Any) -> bool:
    """Numbers that lie in this very file, as many as it says: not external, virtual, packed or objects."""
    return (
        isinstance(value, h5py.Dataset)
        and not value.external
        and not value.is_virtual
        and value.chunks is None
        and value.dtype.kind in "biuf"
        and value.id.get_storage_size() == value.nbytes
    )
