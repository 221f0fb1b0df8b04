"""Test that probe files written without Keras are byte-identical to those written with Keras."""

import numpy as np
import pytest

from leaf.models import onnx_export
from leaf.models.build import build_model
from leaf.models.feature_cache import NotCachedError
from leaf.models.prediction import cached_features, linear_head, probe_facts
from leaf.models.probe_files import LinearHead, find_probe_files, probe_key, save_probe_file
from leaf.models.saving import save_model
from leaf.params import Params

KEY = "a" * 32


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAF_STATE", str(tmp_path / "state"))
    return tmp_path


def classifier(backbone, classes, seed=0):
    """Return a classifier with a frozen backbone and a random head."""
    model = build_model(backbone, 32, classes, dropout=0, freeze_depth="all")
    random = np.random.default_rng(seed)
    for layer in ("batch_normalization", "dense"):
        weights = model.get_layer(layer).get_weights()
        model.get_layer(layer).set_weights([random.uniform(0.5, 1, each.shape) for each in weights])
    return model


def facts(classes, temperature):
    return {"classes": [f"class {number}" for number in range(classes)], "temperature": temperature, "threshold": None}


def write_slowly(model, temperature, images, folder):
    """Write the `.keras` and ONNX files with Keras and return their paths."""
    save_model(model, folder / "model.keras")
    made = facts(model.output_shape[-1], temperature)
    assert onnx_export.write(model, made, images, folder / "model.onnx") == ""
    return folder / "model.keras", folder / "model.onnx"


@pytest.mark.parametrize(
    ("backbone", "classes"),
    [
        ("cnn_small", 2),
        ("cnn_small", 3),
        ("cnn_small", 12),
        pytest.param("convnext_atto", 2, marks=pytest.mark.slow),
        pytest.param("convnextv2_atto", 12, marks=pytest.mark.slow),
    ],
)
def test_files_are_byte_identical_to_those_of_keras(folder, images, backbone, classes):
    earlier, later = classifier(backbone, 3), classifier(backbone, classes, seed=1)
    keras_file, onnx_file = write_slowly(earlier, 1.5, images, folder)
    save_probe_file(KEY, keras_file, probe_facts(earlier))
    save_probe_file(KEY, onnx_file, {})
    wanted = [path.read_bytes() for path in write_slowly(later, 0.7, images, folder)]

    files = find_probe_files(KEY)
    with pytest.raises(NotCachedError):
        files.features(images, np.arange(4))
    features = cached_features(earlier, images, np.arange(10))
    np.testing.assert_array_equal(files.features(images, np.arange(10)), features)
    files.write_model(linear_head(later), folder / "fast.keras")
    head = LinearHead.read(folder / "fast.keras")
    why = files.write_onnx(head, facts(classes, 0.7), images, features, folder / "fast.onnx")
    assert why == ""
    assert [(folder / f"fast.{suffix}").read_bytes() for suffix in ("keras", "onnx")] == wanted


def test_damaged_files_are_not_used(folder, images):
    model = classifier("cnn_small", 2)
    for path in write_slowly(model, 1.0, images, folder):
        save_probe_file(KEY, path, {})
    assert find_probe_files(KEY)
    stored = folder / "state" / "features" / KEY / "model.onnx"
    stored.write_bytes(stored.read_bytes()[:-1] + b"x")
    assert find_probe_files(KEY) is None
    assert find_probe_files("b" * 32) is None


def test_files_count_toward_the_size_limit_of_the_cache(folder, images, monkeypatch):
    model = classifier("cnn_small", 2)
    for path in write_slowly(model, 1.0, images, folder):
        save_probe_file(KEY, path, {})
    monkeypatch.setattr("leaf.models.feature_cache.LIMIT", 1)
    cached_features(model, images, np.arange(3))
    assert find_probe_files(KEY) is None


def test_key_depends_on_the_backbone_but_not_on_the_split():
    first = Params(backbone="mobilenet_v2", weights="imagenet")
    assert probe_key(first) == probe_key(first.model_copy(update={"split_seed": 7}))
    assert probe_key(first) != probe_key(first.model_copy(update={"seed": 7}))
    assert probe_key(first) != probe_key(first.model_copy(update={"image_size": 160}))


def test_checkpoint_without_sha256_has_no_key():
    changing = Params(backbone="convnext_nano", weights="imagenet")
    assert probe_key(changing) is None
    assert probe_key(changing.model_copy(update={"weights_sha256": "0" * 64}))
