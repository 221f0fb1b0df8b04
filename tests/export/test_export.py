"""Test that every export format gives the same probabilities in its own runtime as `leaf.load`."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

import leaf
from leaf.errors import LeafError
from leaf.export import formats
from leaf.export.formats import FORMATS, export, with_probabilities
from leaf.ingest.decode import to_square
from leaf.models.build import build_model
from leaf.models.prediction import predict_probabilities
from leaf.models.tta import tta_view

pytestmark = pytest.mark.slow

BARE = """
import importlib.abc, sys
class Closed(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"leaf", "PIL", "cv2", "sklearn", "pandas", "scipy"}:
            raise ImportError(name)
sys.meta_path.insert(0, Closed())
sys.path.insert(0, sys.argv[1])
import numpy as np
from model import model
made = model(sys.argv[1]).predict(np.load(sys.argv[2]))
print(made.dtype.name, *made.numpy())
"""


@pytest.fixture(scope="module")
def held_out(trained):
    return np.load(trained / "images.npz")["test"]


@pytest.fixture(scope="module")
def expected(trained, held_out):
    """Return the probability of the second class for each image, predicted with `leaf.load`."""
    rows = leaf.load(trained / "models" / "model.keras").predict(held_out)
    return np.array([row.probability for row in rows])


def write(trained, form, folder):
    path = folder / FORMATS[form].name
    export(trained / "models" / "model.keras", form, path)
    return path


def with_litert(path, images):
    runtime = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path))
    place = runtime.get_input_details()[0]["index"]
    runtime.resize_tensor_input(place, images.shape)
    runtime.allocate_tensors()
    runtime.set_tensor(place, images)
    runtime.invoke()
    return runtime.get_tensor(runtime.get_output_details()[0]["index"])


def with_savedmodel(path, images):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    return loaded.serve(images).numpy()


RUNTIMES = {
    "keras": lambda path, images: keras.saving.load_model(path).predict_on_batch(images),
    "savedmodel": with_savedmodel,
    "litert": with_litert,
}


METADATA = {"classes": ["healthy", "rust", "a name\nof two lines"], "threshold": None, "image_size": 32}


@pytest.mark.parametrize("form", sorted(RUNTIMES))
def test_exported_file_gives_the_same_probabilities(trained, held_out, expected, form, tmp_path):
    given = RUNTIMES[form](write(trained, form, tmp_path), held_out.astype(np.float32))
    assert np.abs(given[:, 1] - expected).max() < 1e-5
    assert np.allclose(given.sum(axis=1), 1, atol=1e-5)


def test_exact_gelu_and_normalization_survive_export(awkward, images, tmp_path):
    path = tmp_path / "model.tflite"
    formats.write_litert(awkward, METADATA, path)
    expected = np.asarray(awkward(images))
    assert np.ptp(expected[:, 1]) > 1e-4
    assert np.abs(with_litert(path, images) - expected).max() < 1e-5


def test_litert_file_contains_classes_and_metadata(awkward, tmp_path):
    formats.write_litert(awkward, METADATA, tmp_path / "model.tflite")
    with zipfile.ZipFile(tmp_path / "model.tflite") as archive:
        assert json.loads(archive.read("metadata.json")) == METADATA
        assert archive.read("labels.txt").decode().splitlines() == ["healthy", "rust", "a name\\u000aof two lines"]


def test_codalab_bundle_requires_only_tensorflow(trained, held_out, expected, tmp_path):
    network = keras.Sequential([keras.Input((96, 96, 3)), keras.layers.GlobalAveragePooling2D()])
    weights = np.array([[0.04, -0.04]] * 3, np.float32)
    network.add(keras.layers.Dense(2, activation="softmax"))
    network.set_weights([weights, np.array([-12, 12], np.float32)])
    formats.write_codalab(network, {"threshold": 0.3, "views": 1}, tmp_path / "bundle")
    images = np.random.default_rng(0).uniform(0, 1, (70, 96, 96, 3)).astype(np.float32)
    images *= np.linspace(1, 255, 70, dtype=np.float32)[:, None, None, None]
    np.save(tmp_path / "images.npy", images)
    wanted = (np.asarray(network(images))[:, 1] >= np.float32(0.3)).astype(int)
    assert 0 < wanted.mean() < 1
    command = [sys.executable, "-c", BARE, str(tmp_path / "bundle"), str(tmp_path / "images.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["int64", *map(str, wanted)]


@pytest.mark.parametrize("size", [32, 128])
def test_codalab_bundle_resizes_like_ingest(size):
    image = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    image[1] = np.arange(96, dtype=np.uint8)[:, None, None] * 2
    difference = np.asarray(formats._resize(image.astype(np.float32), size)) - to_square(image, size)
    assert np.abs(difference).max() <= 1  # rounding
    assert np.mean(difference != 0) < 0.05


FULL = pytest.mark.full
FAMILIES = [
    *("cnn_small", "autoencoder", "convnext_atto", "mobilenet_v2"),
    *(pytest.param(name, marks=FULL) for name in ("mobilenet", "resnet50", "efficientnet_v2_b0", "convnext_tiny")),
    *(pytest.param(name, marks=FULL) for name in ("xception", "cnn_large", "gan")),
]


@pytest.mark.parametrize("backbone", FAMILIES)
def test_codalab_bundle_of_every_family_predicts_like_evaluation(backbone, tmp_path):
    size, views = (80, 2) if backbone == "xception" else (32, 9)  # xception requires at least 71 pixels
    network = build_model(backbone, size, dropout_at="input")
    server = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), np.uint8)
    server[1] //= 4
    # Resize with the bundle's code, which rounds some values differently (test_codalab_bundle_resizes_like_ingest).
    images = np.asarray(formats._resize(server.astype(np.float32), size))
    expected = predict_probabilities(network, images, views=views)
    threshold = float(np.median(expected[:, 1]))
    metadata = {"threshold": threshold - 1e-6, "views": views}
    formats.write_codalab(with_probabilities(network), metadata, tmp_path / "bundle")
    given = with_savedmodel(tmp_path / "bundle" / "SubmissionModel", server.astype(np.float32))
    np.testing.assert_allclose(given, expected, atol=1e-5)
    assert f"THRESHOLD = {threshold - 1e-6!r}" in (tmp_path / "bundle/model.py").read_text()


@pytest.mark.parametrize("number", range(16))
def test_codalab_bundle_uses_the_views_of_evaluation(number):
    images = np.random.default_rng(0).uniform(0, 255, (2, 24, 24, 3)).astype(np.float32)
    np.testing.assert_allclose(formats._view(images, 24, number), tta_view(images, number), atol=1e-3)


def test_codalab_bundle_can_be_a_zip_file(trained, tmp_path):
    export(trained / "models" / "model.keras", "codalab", tmp_path / "submission.zip")
    names = zipfile.ZipFile(tmp_path / "submission.zip").namelist()
    assert {"model.py", "SubmissionModel/saved_model.pb"} <= set(names)


@pytest.mark.parametrize(
    ("form", "to", "why"),
    [
        (
            "caffe",
            "x",
            "format: 'caffe'; valid: web, keras, savedmodel, litert, codalab. For ONNX, use models/model.onnx.",
        ),
        ("litert", "model.onnx", "litert is written to a .tflite file"),
        ("savedmodel", "model.pb", "savedmodel is written to a folder"),
    ],
)
def test_invalid_format_or_path_is_rejected(trained, form, to, why, tmp_path):
    with pytest.raises(LeafError, match=why):
        export(trained / "models" / "model.keras", form, tmp_path / to)


def test_model_is_never_overwritten(trained):
    model = trained / "models" / "model.keras"
    with pytest.raises(LeafError, match="overwrite"):
        export(model, "keras", model)


def test_folder_that_is_not_an_export_is_not_replaced(trained, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(LeafError, match="exists and is not an earlier export"):
        export(trained / "models" / "model.keras", "savedmodel", tmp_path / "mine")
    assert [path.name for path in Path(tmp_path).rglob("*.txt")] == ["letter.txt"]
