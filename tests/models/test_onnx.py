"""Test that ONNX files give the same outputs as Keras, and that invalid files raise a one-line error."""

import json
import re
import resource
from itertools import pairwise

import keras
import numpy as np
import onnx as package
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from leaf.errors import LeafError
from leaf.models import gradcam, onnx_inference
from leaf.models import onnx_export as onnx
from leaf.models.backbones import BACKBONES, VARIANTS, is_detector
from leaf.models.build import build_model
from leaf.models.prediction import KerasNetwork, predict_probabilities
from tests.damaged import assert_read_or_refused, damaged

METADATA = {"classes": ["healthy", "rust", "a name\nof two lines"], "threshold": None, "temperature": 1.5}
# Xception requires at least 71 pixels. The other sides result in feature maps with an odd side.
SIDES = {
    "xception": 71,
    "convnext_atto": 75,
    "cnn_large": 45,
}
# Tested only nightly, because they are slow to build or are larger variants of another backbone.
NIGHTLY = {"convnext_tiny", "efficientnet_v2_b0", "mobilenet", "resnet50", "xception", "cnn_medium", "cnn_large"}
NIGHTLY |= VARIANTS.keys() - {"convnext_femto_ols", "convnext_atto_patch", "convnextv2_atto"}
LARGE = ("small", "base", "large", "xlarge", "huge")  # convnextv2_huge exceeds ONNX's 2 GiB file limit
FAMILIES = [
    pytest.param(name, marks=pytest.mark.full if name in NIGHTLY else ())
    for name in BACKBONES
    if not (name.startswith("convnext") and name.endswith(LARGE))
]


def random_network(name, side, seed=0):
    """Return a model with random weights whose BatchNormalization is fitted to `noise_images`, so its outputs vary."""
    rng = np.random.default_rng(seed)
    model = build_model(name, side, classes=2 if is_detector(name) else 3, dropout_at="input")
    for weight in model.weights:
        if len(weight.shape) == 1 and "moving" not in weight.path:
            weight.assign(np.asarray(weight) + rng.normal(0, 0.1, weight.shape))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(noise_images(side, 16).astype(np.float32), training=True)
    return model


def noise_images(side, count=4):
    """Return noise images of increasing brightness, uint8 (count, side, side, 3)."""
    noise = np.random.default_rng(1).uniform(0, 1, (count, side, side, 3))
    return (noise * np.linspace(40, 255, count)[:, None, None, None]).astype(np.uint8)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a small model and its ONNX file."""
    model, path = random_network("cnn_small", 16), tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert onnx.write(model, METADATA, noise_images(16), path) == ""
    return model, path


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_outputs_of_every_family_match_keras(name, tmp_path):
    side = SIDES.get(name, 64)
    model, images = random_network(name, side), noise_images(side)
    assert onnx.write(model, METADATA, images, tmp_path / "model.onnx") == ""
    found, wanted = onnx_inference.OnnxNetwork(tmp_path / "model.onnx"), KerasNetwork(model, 1.5)
    images = images.astype(np.float32)
    (probabilities, features), (expected, pooled) = (
        onnx_inference.probabilities(each, images, 8) for each in (found, wanted)
    )
    assert np.ptp(expected[:, 1]) > 1e-3
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    np.testing.assert_allclose(features, pooled, rtol=1e-2, atol=2e-2)
    maps = gradcam.heatmaps(found, images)
    assert maps.std() > 0
    np.testing.assert_allclose(maps, gradcam.heatmaps(wanted, images), atol=1e-2)


def test_identical_models_give_identical_files(written, tmp_path):
    onnx.write(written[0], METADATA, noise_images(16), tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == written[1].read_bytes()


def test_metadata_is_stored_as_json(written):
    found = {entry.key: json.loads(entry.value) for entry in package.load(written[1]).metadata_props}
    assert found == METADATA | {"epsilon": None}


def test_probabilities_in_another_runtime_match_keras(written):
    session = ReferenceEvaluator(str(written[1]))
    images = noise_images(16).astype(np.float32)
    found = session.run(["probabilities"], {"images": images})[0]
    np.testing.assert_allclose(found, predict_probabilities(written[0], images, temperature=1.5), atol=1e-5)


def test_unsupported_layer_is_named_and_the_file_is_empty(tmp_path):
    @keras.saving.register_keras_serializable("test")
    class Odd(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    body = build_model("cnn_small", 16)
    image = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(Odd(name="odd")(image))
    x = keras.layers.BatchNormalization(name="batch_normalization")(x)
    model = keras.Model(image, keras.layers.Dense(2, name="dense")(x))
    assert onnx.write(model, METADATA, noise_images(16), tmp_path / "a.onnx").startswith("the layer odd (Odd)")
    assert (tmp_path / "a.onnx").read_bytes() == b""
    assert onnx.write(body, METADATA, noise_images(16), tmp_path / "a.onnx") == ""


def test_file_whose_outputs_differ_from_keras_is_emptied(tmp_path, monkeypatch):
    monkeypatch.setitem(onnx.LAYERS, "MaxPooling2D", onnx.LAYERS["AveragePooling2D"])
    why = onnx.write(random_network("cnn_small", 16), METADATA, noise_images(16), tmp_path / "model.onnx")
    assert re.fullmatch(r"the ONNX output `(probabilities|features|map)` differs from Keras by \S+", why)


def test_nan_in_the_weights_is_rejected(tmp_path):
    model = random_network("cnn_small", 16)
    onnx.write(model, METADATA, noise_images(16), tmp_path / "model.onnx")
    file = package.load(tmp_path / "model.onnx")
    kernel = max(file.graph.initializer, key=lambda each: len(each.raw_data))
    kernel.raw_data = np.full(len(kernel.raw_data) // 4, np.nan, np.float32).tobytes()
    package.save(file, tmp_path / "model.onnx")
    with pytest.raises(LeafError, match="NaN or infinite"):
        onnx_inference.OnnxNetwork(tmp_path / "model.onnx").predict(noise_images(16))


def elsewhere(file):
    file.graph.initializer[0].ClearField("raw_data")
    file.graph.initializer[0].data_location = TensorProto.EXTERNAL
    file.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")


def looping(file):
    body = helper.make_graph([], "body", [], [])
    file.graph.node.insert(0, helper.make_node("Loop", ["", ""], ["x"], body=body))


def hidden_graph(file):
    file.graph.node[0].attribute.append(helper.make_attribute("body", helper.make_graph([], "body", [], [])))


def foreign(file):
    file.graph.node[0].domain = "com.microsoft"


def rectangular(file):
    file.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 17


def other_names(file):
    file.graph.output[0].name = "y"


def no_slopes(file):
    file.graph.node[-1].input[0] = "images"


def enormous(file):
    for dim in file.graph.input[0].type.tensor_type.shape.dim[1:3]:
        dim.dim_value = 1 << 40


def side_4096(file):
    for dim in file.graph.input[0].type.tensor_type.shape.dim[1:3]:
        dim.dim_value = 4096


def append(file, *nodes, **constants):
    """Append operators and named constants to the graph."""
    file.graph.node.extend(helper.make_node(*each[:3], **each[3]) for each in nodes)
    file.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())


def pads_30000(file):
    names = ["images", *(f"padded_{number}" for number in range(30_000))]
    pads = np.array([0, 1, 1, 0, 0, 1, 1, 0])
    append(file, *(("Pad", [one, "pads"], [two], {}) for one, two in pairwise(names)), pads=pads)


def resize_by_1000(file):
    scales = np.array([1, 1000, 1000, 1], np.float32)
    append(file, ("Resize", ["images", "", "scales"], ["resized"], {"mode": "nearest"}), scales=scales)


def resizes_1000(file):
    names = ["images", *(f"resized_{number}" for number in range(1000))]
    scales = [np.array([1, each, each, 1], np.float32) for each in (200, 1)]
    nodes = [
        ("Resize", [one, "", "same" if number else "large"], [two], {"mode": "linear"})
        for number, (one, two) in enumerate(pairwise(names))
    ]
    append(file, *nodes, large=scales[0], same=scales[1])


def matrix_products(file):
    square = np.ones((2048, 2048), np.float32)
    names = ["square", *(f"product_{number}" for number in range(200))]
    append(file, *(("MatMul", [one, "square"], [two], {}) for one, two in pairwise(names)), square=square)


def all_held(file):
    shape = np.array([1, 768, 1, 1], np.int64)
    scales = np.array([1, 1, 400, 400], np.float32)
    names = [f"large_{number}" for number in range(3)]
    nodes = [("Resize", ["column", "", "scales"], [name], {"mode": "nearest"}) for name in names]
    append(
        file,
        ("Reshape", ["images", "shape"], ["column"], {}),
        *nodes,
        ("Concat", names, ["all"], {"axis": 1}),
        shape=shape,
        scales=scales,
    )


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (side_4096, "square image of up to 1024 pixels"),
        (pads_30000, r"3\d{4} nodes; valid: up to 5000"),
        (resize_by_1000, r"requires 7\d\d,\d{3},\d{3} values in memory; valid: up to 268,435,456"),
        (resizes_1000, r"e\+12 multiplications per image"),
        (matrix_products, r"e\+12 multiplications per image"),
        (all_held, r"requires \d{3},\d{3},\d{3} values in memory"),
        (elsewhere, "values in other files"),
        (looping, "operator :Loop"),
        (hidden_graph, "graph or a tensor"),
        (foreign, "operator com.microsoft:"),
        (rectangular, "not a square image"),
        (enormous, "not a square image"),
        (other_names, "inputs or outputs"),
        (no_slopes, "output shapes"),
        (lambda file: file.graph.node.pop(3), ""),
        (lambda file: file.ClearField("metadata_props"), "epsilon"),
    ],
)
def test_hostile_file_is_rejected_in_one_line(written, tmp_path, change, why):
    file = package.load(written[1])
    change(file)
    (tmp_path / "model.onnx").write_bytes(file.SerializeToString())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LeafError, match=rf"model\.onnx: .*{why}") as caught:
        onnx_inference.OnnxNetwork(tmp_path / "model.onnx")
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_runtime_error_is_one_line(written, tmp_path):
    file = package.load(written[1])
    place = next(number for number, node in enumerate(file.graph.node) if node.output[0] == "features")
    file.graph.node[place].output[0] = "pooled"
    append(file, ("Reshape", ["pooled", "shape"], ["features"], {}), shape=np.array([1, 128]))
    package.save(file, tmp_path / "model.onnx")
    network = onnx_inference.OnnxNetwork(tmp_path / "model.onnx")
    with pytest.raises(LeafError, match=r"Run `dvc repro`") as caught:
        network.predict(noise_images(16, 3).astype(np.float32))
    assert "\n" not in str(caught.value)


def test_splitting_a_large_batch_does_not_change_the_outputs(written, monkeypatch):
    images = noise_images(16, 5).astype(np.float32)
    whole = onnx_inference.OnnxNetwork(written[1]).predict(images)
    monkeypatch.setattr(onnx_inference, "_VALUES", 50_000)
    parts = onnx_inference.OnnxNetwork(written[1])
    assert parts._batch < 5
    for found, wanted in zip(parts.predict(images), whole, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("content", [b"", b"no network", b"PK\x03\x04" * 50, b"\xff" * 5000])
def test_file_of_another_format_is_rejected_in_one_line(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(LeafError, match="`dvc repro`"):
        onnx_inference.OnnxNetwork(tmp_path / "model.onnx")


def test_corrupted_files_are_read_or_rejected_in_one_line(written, tmp_path):
    path = tmp_path / "model.onnx"
    assert_read_or_refused(lambda: onnx_inference.OnnxNetwork(path), path, damaged(written[1].read_bytes(), 300))


def test_huge_file_is_rejected_before_it_is_read(tmp_path):
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(1 << 40)  # creates a sparse file, which uses no disk space
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(LeafError, match=r"model\.onnx: 1,099,511,627,776 bytes; valid: at most 2,147,483,647"):
        onnx_inference.OnnxNetwork(tmp_path / "model.onnx")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
