"""Save models deterministically, and load them without executing code from the file."""

import json
import math
import os
import shutil
import tempfile
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np

from leaf import store
from leaf.errors import LeafError
from leaf.models import autoencoder, gan, layers
from leaf.models.probe_files import zip_entry

_ENTRIES = {"metadata.json", "config.json", "model.weights.h5"}
_CONFIG_LIMIT = 4 << 20  # maximum size of a JSON file in bytes; ConvNeXt XLarge needs a few hundred thousand
_PARTS_LIMIT = 5000  # maximum number of serialized objects, such as layers; about 1500 for ConvNeXt XLarge
_SIDE = 1024  # maximum image side, kernel size, stride, padding or scale factor, in pixels
_GROWTH = 100  # maximum ratio of the size of a layer's output to that of the image; 22 for ConvNeXt XLarge
_SIZES = ("kernel_size", "strides", "dilation_rate", "pool_size", "size", "padding", "output_padding", "block")

# fmt: off
_LAYERS = (
    "Activation", "Add", "AveragePooling2D", "BatchNormalization", "Conv2D", "Conv2DTranspose", "Dense",
    "DepthwiseConv2D", "Dropout", "Flatten", "GlobalAveragePooling2D", "InputLayer", "LayerNormalization",
    "LeakyReLU", "MaxPooling2D", "Multiply", "ReLU", "Rescaling", "Reshape", "SeparableConv2D", "Subtract",
    "UpSampling2D", "ZeroPadding2D",
)
_INITIALIZERS = (
    "Constant", "GlorotNormal", "GlorotUniform", "HeNormal", "HeUniform", "Ones", "Orthogonal", "RandomNormal",
    "RandomUniform", "TruncatedNormal", "VarianceScaling", "Zeros",
)
# fmt: on
# Importing these modules also registers the classes with Keras.
_OURS = (
    *(layers.CaffePreprocessing, layers.GELU, layers.GlobalResponseNormalization),
    *(layers.LayerNormalization, layers.LayerScale),
    *(autoencoder.ReconstructionScore, autoencoder.Residual, autoencoder.ScoreLogits, gan.SpectralConv2D),
)
_ALLOWED = [  # module, class name and registered name
    *(("keras.layers", name, None) for name in _LAYERS),
    *(("keras.initializers", name, None) for name in _INITIALIZERS),
    *(("keras", "Sequential", None), ("keras", "DTypePolicy", None)),
    *(("keras.src.models.functional", "Functional", "Functional"), ("keras.src.ops.numpy", "Add", "Add")),
    *((kind.__module__, kind.__name__, f"leaf>{kind.__name__}") for kind in _OURS),
]
# Keys with these suffixes contain function names; only activation functions are allowed.
_FUNCTIONS = ("activation", "initializer", "regularizer", "constraint")
_ACTIVATIONS = {"linear", "relu", "relu6", "gelu", "silu", "swish", "sigmoid", "tanh", "softmax", "leaky_relu"}


def _check_file(path: Path) -> int:
    """Return the number of values in a `.keras` file; raise LeafError if `save_model` cannot have written it."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(path, archive)
            config = json.loads(archive.read("config.json"))
            _check_config(path, config)
            if json.dumps(config).count('"class_name"') > _PARTS_LIMIT:
                raise LeafError(f"{path}: contains more than {_PARTS_LIMIT} objects. Use a model saved by `train`.")
            with archive.open("model.weights.h5") as stream, h5py.File(stream, "r") as arrays:
                return check_arrays(path, arrays)
    except (zipfile.BadZipFile, ValueError, OSError, KeyError, RuntimeError) as e:  # RuntimeError covers RecursionError
        raise LeafError(f"{path}: not a readable .keras file ({e}). Use a model saved by `train`.") from None


def _check_entries(path: Path, archive: zipfile.ZipFile) -> None:
    found = sorted(archive.namelist())
    if found != sorted(_ENTRIES):
        raise LeafError(f"{path}: contains {', '.join(found[:5])}; valid: {', '.join(sorted(_ENTRIES))}")
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED:
            raise LeafError(f"{path}: {entry.filename} is compressed; valid: uncompressed, as `train` writes it")
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
    elif isinstance(node, (int, float)) and key in _SIZES and not 0 <= node <= _SIDE:
        raise LeafError(f"{path}: {key} is {node}; valid: up to {_SIDE}")
    elif isinstance(node, str) and key.endswith(_FUNCTIONS) and node not in _ACTIVATIONS:
        raise LeafError(f"{path}: {key} is {node!r}; valid: {', '.join(sorted(_ACTIVATIONS))}")


def _check_class(path: Path, node: dict[str, Any]) -> None:
    if node["class_name"] == "__keras_tensor__" and set(node) == {"class_name", "config"}:
        return
    named = (node.get("module"), node["class_name"], node.get("registered_name"))
    if named not in _ALLOWED:
        module, name, registered = (str(part)[:80] for part in named)
        more = f" (registered as {registered})" if registered not in ("None", name) else ""
        raise LeafError(f"{path}: contains the class {module}.{name}{more}. Use a model saved by `train`.")


def check_arrays(path: Path, group: h5py.Group, seen: set[int] | None = None) -> int:
    """Return the number of values in an HDF5 file; raise LeafError if it contains links, cycles or non-plain arrays."""
    values, seen = 0, set() if seen is None else seen
    address = h5py.h5o.get_info(group.id).addr
    if address in seen:
        raise LeafError(f"{path}: HDF5 groups form a cycle. Use a model saved by `train`.")
    seen.add(address)
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise LeafError(f"{path}: array {name} is a link. Use a model saved by `train`.")
        value = group[name]
        if isinstance(value, h5py.Group):
            values += check_arrays(path, value, seen)
        elif _plain(value):
            values += value.size
        else:
            raise LeafError(f"{path}: array {name} is not a plain numeric array. Use a model saved by `train`.")
    return values


def _plain(value: Any) -> bool:
    """Return whether a dataset is numeric, uncompressed and stored entirely in this file (not external or virtual)."""
    return (
        isinstance(value, h5py.Dataset)
        and not value.external
        and not value.is_virtual
        and value.chunks is None
        and value.dtype.kind in "biuf"
        and value.id.get_storage_size() == value.nbytes
    )


_HEADER = 4096  # upper bound on the HDF5 and JSON overhead per variable, in bytes


def save_model(model: keras.Model, path: str | Path) -> None:
    """Write a model without its optimizer as a `.keras` file; equal models produce byte-identical files."""
    if Path(path).suffix != ".keras":
        raise LeafError(f"{path}: not a .keras file")
    bare = keras.Model(model.input, model.output, name=model.name)  # drops the arguments of compile()
    config = keras.saving.serialize_keras_object(bare)
    metadata = {"keras_version": keras.__version__, "date_saved": "1980-01-01@00:00:00"}
    with store.replacing(path) as partial, tempfile.TemporaryDirectory(dir=partial.parent) as folder:
        _check_free_space(partial, 2 * sum(4 * math.prod(each.shape) + _HEADER for each in bare.variables), path)
        variables = Path(folder) / "model.weights.h5"
        bare.save_weights(variables)
        with zipfile.ZipFile(partial, "w") as file:
            for name, value in (("metadata.json", metadata), ("config.json", config)):
                file.writestr(zip_entry(name), json.dumps(value, sort_keys=True))
            entry = zip_entry(variables.name)
            entry.file_size = variables.stat().st_size  # so that ZIP64 is used only if needed
            with file.open(entry, "w") as target, variables.open("rb") as source:
                shutil.copyfileobj(source, target)


def _check_free_space(partial: Path, size: int, path: str | Path) -> None:
    """Raise OSError for `path` if fewer than `size` bytes are free, because HDF5 would print its own tracebacks."""
    with partial.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except AttributeError:  # not available on macOS
            pass
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        finally:
            file.truncate(0)


def load_model(path: str | Path, sha256: str | None = None) -> keras.Model:
    """Load a model written by `save_model`.

    Args:
        path: a `.keras` file.
        sha256: expected SHA-256 in hex; None to skip the check.

    Raises:
        LeafError: if the file is missing or damaged, has the wrong SHA-256, or contains a class that is not allowed.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise LeafError(f"{path}: not a .keras file. Use a model saved by `train`.")
    if not path.is_file():
        raise LeafError(f"{path}: no such file. Run `dvc repro` first.")
    if sha256 is not None and (found := store.sha256(path)) != sha256:
        raise LeafError(
            f"{path}: changed since it was trained; SHA-256 is {found}, expected {sha256}. Run `dvc repro`."
        )
    values = _check_file(path)
    try:
        with ThreadPoolExecutor(1) as thread, warnings.catch_warnings():
            warnings.filterwarnings("error", message="Skipping")  # arrays that Keras would leave uninitialized
            model = thread.submit(_read, path, values).result()
    except Exception as error:  # Keras can raise any exception for a damaged configuration
        raise LeafError(
            f"{path}: Keras cannot build this model ({str(error)[:200]}). Use one saved by `train`."
        ) from error
    single = isinstance(model, keras.Model) and len(model.inputs) == 1
    shape: tuple[Any, ...] = tuple(model.inputs[0].shape) if single else ()
    if len(shape) != 4 or shape[1] not in range(1, _SIDE + 1) or shape[1:] != (shape[1], shape[1], 3):
        raise LeafError(f"{path}: has no image input. Use a model saved by `train`.")
    _check_outputs(path, model, _GROWTH * math.prod(shape[1:]))
    try:  # some invalid strides and dtypes cause errors only when the model runs
        model(np.zeros((1, *shape[1:]), np.float32))
    except Exception as error:
        raise LeafError(
            f"{path}: Keras cannot run this model ({str(error)[:200]}). Use one saved by `train`."
        ) from error
    return model


def _check_outputs(path: Path, model: keras.Model, most: int) -> None:
    """Raise LeafError if a layer's output for one image has more than `most` values."""
    for operation in model.layers if isinstance(model, keras.Sequential) else model.operations:
        if isinstance(operation, keras.Model):
            _check_outputs(path, operation, most)
        for tensor in keras.tree.flatten(operation.output):
            if math.prod(tensor.shape[1:]) > most:
                raise LeafError(f"{path}: {operation.name} outputs {tensor.shape[1:]}; valid: up to {most} values")


def _read(path: Path, stored: int) -> keras.Model:
    """Build the model of a checked file and load its weights; raise ValueError if it needs more than `stored` values.

    Weights are declared first and allocated only after the check, because even a small file can configure more weights
    than fit in memory. Keras keeps a thread-local list of declared weights. `load_model` therefore calls this function
    in a separate thread, so that the list is discarded even if the model is rejected.
    """
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory() as folder:
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(json.loads(archive.read("config.json")), safe_mode=True)
        if isinstance(model, keras.Model) and (configured := model.count_params()) > stored:
            raise ValueError(f"{configured:,} weights are configured, but {stored:,} are stored")
        with keras.StatelessScope():
            pass  # the declared weights are allocated on leaving the scope
        model.load_weights(archive.extract("model.weights.h5", folder))
    return model
