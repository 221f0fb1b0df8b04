"""Test that untrusted `.keras` files are rejected unless they contain only plain arrays and known classes."""

import io
import json
import pickle
import resource
import zipfile

import h5py
import keras
import numpy as np
import pytest

from leaf.errors import LeafError
from leaf.models.saving import load_model, save_model

CALLED = []


@keras.saving.register_keras_serializable("foreign")
class Recorder(keras.layers.Layer):
    """A layer registered by another library. Each instantiation is recorded."""

    def __init__(self, *args, **kwargs):
        CALLED.append("class")
        super().__init__()


@keras.saving.register_keras_serializable("foreign")
def recorder(inputs):
    CALLED.append("function")
    return inputs


@pytest.fixture(scope="module")
def good(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "good.keras"
    save_model(small, path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def write(tmp_path):
    def _write(entries, compression=zipfile.ZIP_STORED):
        path = tmp_path / "hostile.keras"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)
        return path

    return _write


def _refused(path, match):
    CALLED.clear()
    with pytest.raises(LeafError, match=match) as caught:
        load_model(path)
    assert CALLED == []
    assert "\n" not in str(caught.value)


SYSTEM = {"args": ["touch ran"], "command": "touch ran"}
CLASSES = {
    "lambda layer": {"module": "keras.layers", "class_name": "Lambda", "config": {}, "registered_name": None},
    "system": {"module": "os", "class_name": "system", "config": SYSTEM, "registered_name": "system"},
    "popen": {"module": "subprocess", "class_name": "Popen", "config": SYSTEM, "registered_name": None},
    "eval": {"module": "builtins", "class_name": "eval", "config": {}, "registered_name": "eval"},
    "function": {"module": "builtins", "class_name": "function", "config": "exec", "registered_name": "exec"},
    "get_file": {
        "module": "keras.utils",
        "class_name": "function",
        "config": "get_file",
        "registered_name": "get_file",
    },
    "foreign": {
        "module": __name__,
        "class_name": "Recorder",
        "config": {},
        "registered_name": "foreign>Recorder",
    },
    "foreign under a known name": {
        "module": "keras.layers",
        "class_name": "Dense",
        "config": {},
        "registered_name": "foreign>Recorder",
    },
    "ours from another module": {
        "module": "os",
        "class_name": "LayerScale",
        "config": {},
        "registered_name": "leaf>LayerScale",
    },
    "saved model": {"module": "keras.layers", "class_name": "TFSMLayer", "config": {}, "registered_name": None},
    "old format": {"class_name": "Lambda", "config": {}},
    "marshalled code": {"class_name": "__lambda__", "config": {"value": "4wAAAA=="}},
    "no name": {"module": "keras.layers", "class_name": ["Dense"], "config": {}, "registered_name": None},
}


@pytest.mark.parametrize("place", ["layer", "initializer", "build_config"])
@pytest.mark.parametrize("kind", CLASSES)
def test_unknown_class_is_rejected_anywhere(good, write, kind, place):
    config = json.loads(good["config.json"])
    layer = config["config"]["layers"][2]
    if place == "layer":
        layer.update({"registered_name": None} | CLASSES[kind])
        if "module" not in CLASSES[kind]:
            del layer["module"]
    elif place == "initializer":
        layer["config"]["kernel_initializer"] = CLASSES[kind]
    else:
        layer["build_config"] = {"input_shape": [[CLASSES[kind]]]}
    _refused(write(good | {"config.json": json.dumps(config)}), "contains the class")


def test_registered_function_is_rejected(good, write):
    config = json.loads(good["config.json"])
    config["config"]["layers"][3]["config"]["activation"] = "foreign>recorder"
    _refused(write(good | {"config.json": json.dumps(config)}), "activation is 'foreign>recorder'")


def test_model_of_an_unknown_class_is_rejected(good, write):
    config = {"module": "os", "class_name": "system", "config": SYSTEM, "registered_name": None}
    _refused(write(good | {"config.json": json.dumps(config)}), "contains the class os.system")


def _arrays(good, change):
    stream = io.BytesIO(good["model.weights.h5"])
    with h5py.File(stream, "r+") as file:
        change(file)
    return good | {"model.weights.h5": stream.getvalue()}


def _virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("evil", layout)


ARRAYS = {
    "external link": lambda file: file.__setitem__("evil", h5py.ExternalLink("/etc/passwd", "/")),
    "soft link": lambda file: file.__setitem__("evil", h5py.SoftLink("/layers")),
    "external data": lambda file: file.create_dataset("evil", (4,), "u1", external=[("/etc/passwd", 0, 4)]),
    "virtual data": _virtual,
    "objects": lambda file: file.create_dataset("evil", data=["text"], dtype=h5py.string_dtype()),
    "bomb": lambda file: file.create_dataset("evil", (10**12,), "u1", chunks=(10**6,), compression="gzip"),
    "unwritten bomb": lambda file: file.create_dataset("evil", (10**12,), "u1"),
    "circle": lambda file: file["layers"].__setitem__("evil", file["/"]),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_external_virtual_linked_and_compressed_arrays_are_rejected(good, write, kind):
    _refused(write(_arrays(good, ARRAYS[kind])), "array .* is |form a cycle")


def test_additional_archive_entry_is_rejected(good, write):
    _refused(write(good | {"../evil.py": b"pass"}), "contains")


def test_compressed_entry_is_rejected(good, write):
    _refused(write(good, zipfile.ZIP_DEFLATED), "is compressed")


def test_deep_nesting_is_rejected(good, write):
    _refused(write(good | {"config.json": "[" * 200_000 + "]" * 200_000}), "not a readable .keras file")


def test_configuration_that_keras_cannot_build_is_rejected(good, write):
    config = json.loads(good["config.json"])
    config["config"]["layers"][3]["config"]["kernel_size"] = "much"
    _refused(write(good | {"config.json": json.dumps(config)}), "Keras cannot build this model")


def test_model_without_an_image_input_is_rejected(write, tmp_path):
    inputs = keras.Input((5,))
    save_model(keras.Model(inputs, keras.layers.Dense(2)(inputs)), tmp_path / "a.keras")
    _refused(tmp_path / "a.keras", "has no image input")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut", pickle.dumps(["os.system"]), b"\x89HDF\r\n\x1a\n"])
def test_file_that_is_not_an_archive_is_rejected(tmp_path, data):
    (tmp_path / "a.keras").write_bytes(data)
    _refused(tmp_path / "a.keras", "not a readable .keras file")


def test_truncated_file_is_rejected(good, write):
    path = write(good)
    path.write_bytes(path.read_bytes()[:-500])
    _refused(path, "not a readable .keras file")


@pytest.mark.parametrize("name", ["model.h5", "model.pkl", "model"])
def test_file_with_another_suffix_is_rejected(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    _refused(tmp_path / name, "not a .keras file")


def test_unchanged_file_loads(good, write):
    assert np.isfinite(load_model(write(good)).get_weights()[0]).all()


@pytest.mark.parametrize(("kind", "key", "value"), [("Dense", "units", 400_000_000), ("Conv2D", "filters", 3_000_000)])
def test_configuration_with_more_weights_than_stored_is_rejected_before_it_is_built(good, write, kind, key, value):
    config = json.loads(good["config.json"])
    layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == kind)
    layer["config"][key] = value
    path = write(good | {"config.json": json.dumps(config).encode()})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _refused(path, "weights are configured|is incompatible with the layer")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024  # KiB


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("MaxPooling2D", "pool_size", [100_000, 100_000]),
        ("MaxPooling2D", "strides", [1e400, 1]),
        ("Conv2D", "dilation_rate", [2**31, 1]),
        ("Conv2D", "kernel_size", [-1, 3]),
        ("Conv2D", "strides", float("nan")),
    ],
)
def test_size_above_the_largest_image_is_rejected(good, write, kind, key, value):
    config = json.loads(good["config.json"])
    layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == kind)
    layer["config"][key] = value
    _refused(write(good | {"config.json": json.dumps(config)}), f"{key} is .*; valid: up to 1024")


@pytest.mark.parametrize("layer", [keras.layers.UpSampling2D(500), keras.layers.ZeroPadding2D(1000)])
def test_layer_with_a_huge_output_is_rejected(tmp_path, layer):
    image = keras.Input((32, 32, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(layer(image))
    save_model(keras.Model(image, keras.layers.Dense(2)(pooled)), tmp_path / "a.keras")
    _refused(tmp_path / "a.keras", r"outputs \(\d+, \d+, 3\); valid: up to 307200 values")


def test_too_many_layers_are_rejected_before_they_are_built(good, write):
    config = json.loads(good["config.json"])
    config["config"]["layers"] *= 100
    _refused(write(good | {"config.json": json.dumps(config)}), "contains more than 5000 objects")


def test_image_above_the_largest_size_is_rejected(good, write):
    config = json.loads(good["config.json"])
    config["config"]["layers"][0]["config"]["batch_shape"] = [None, 4096, 4096, 3]
    _refused(write(good | {"config.json": json.dumps(config)}), "has no image input")
