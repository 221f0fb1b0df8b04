"""Test that identical models produce identical files, and that a loaded model makes the same predictions."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from leaf import store
from leaf.errors import LeafError
from leaf.models.backbones import BACKBONES
from leaf.models.build import build_model
from leaf.models.prediction import predict_probabilities
from leaf.models.saving import load_model, save_model

# Larger ConvNeXts are omitted: they repeat the blocks of convnext_tiny and have gigabytes of weights.
TRIED = sorted(set(BACKBONES) - {f"convnext_{size}" for size in ("small", "base", "large", "xlarge")})

OURS = ["autoencoder", "cnn_small", "convnext_atto", "gan", "mobilenet_v2"]  # the last one is from keras.applications


def test_identical_models_give_identical_files(small, tmp_path):
    save_model(small, tmp_path / "a.keras")
    save_model(build_model("cnn_small", 32, seed=7), tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


def test_file_does_not_depend_on_the_python_release(small, tmp_path):
    save_model(small, tmp_path / "a.keras")
    with zipfile.ZipFile(tmp_path / "a.keras") as file:
        assert {member.extract_version for member in file.infolist()} == {zipfile.DEFAULT_VERSION}


def test_saving_a_loaded_model_gives_the_same_file(small, tmp_path):
    save_model(small, tmp_path / "a.keras")
    save_model(load_model(tmp_path / "a.keras"), tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


@pytest.mark.slow
def test_optimizer_is_not_saved(small, images, tmp_path):
    model = build_model("cnn_small", 32)
    model.compile("adam", "mse")
    model.fit(images.astype(np.float32), np.zeros((10, 2), np.float32), verbose=0)
    save_model(model, tmp_path / "a.keras")
    loaded = load_model(tmp_path / "a.keras")
    assert not loaded.compiled
    np.testing.assert_allclose(predict_probabilities(model, images), predict_probabilities(loaded, images), atol=1e-6)


def test_changed_file_is_rejected(small, tmp_path):
    save_model(small, tmp_path / "a.keras")
    with pytest.raises(LeafError, match="changed since it was trained"):
        load_model(tmp_path / "a.keras", sha256="0" * 64)


def test_matching_sha256_is_accepted(small, tmp_path):
    save_model(small, tmp_path / "a.keras")
    assert load_model(tmp_path / "a.keras", sha256=store.sha256(tmp_path / "a.keras")).name == "cnn_small"


def test_missing_file_is_named(tmp_path):
    with pytest.raises(LeafError, match=r"none.keras: no such file"):
        load_model(tmp_path / "none.keras")


@pytest.mark.slow
@pytest.mark.parametrize("names", [OURS, pytest.param(TRIED, marks=pytest.mark.full)], ids=["ours", "all"])
def test_loaded_model_makes_the_same_predictions_in_a_new_process(names, tmp_path):
    images = np.random.default_rng(3).integers(0, 256, (3, 80, 80, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    expected = {}
    for name in names:
        model = build_model(name, 80, dropout_at="input")  # the only position that detectors support
        save_model(model, tmp_path / f"{name}.keras")
        model.run_eagerly = True  # faster than compiling for three images
        expected[name] = predict_probabilities(model, images).tolist()
    script = (
        "import json, pathlib, numpy\n"
        "from leaf.models.prediction import predict_probabilities\nfrom leaf.models.saving import load_model\n"
        "images, given = numpy.load('images.npy'), {}\n"
        "for file in pathlib.Path().glob('*.keras'):\n"
        "    model = load_model(file)\n"
        "    model.run_eagerly = True\n"
        "    given[file.stem] = predict_probabilities(model, images).tolist()\n"
        "print(json.dumps(given))\n"
    )
    command = [sys.executable, "-c", script]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    given = json.loads(answer.splitlines()[-1])
    assert given.keys() == expected.keys()
    for name in names:
        np.testing.assert_allclose(given[name], expected[name], atol=1e-6, err_msg=name)
