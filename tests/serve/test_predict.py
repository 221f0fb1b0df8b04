"""Test `leaf predict` and `leaf.load` on a small trained network."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import leaf
from leaf.cli import app, main
from leaf.errors import LeafError
from leaf.models.prediction import compute_heatmaps, predict_probabilities
from leaf.models.saving import load_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(trained):
    return leaf.load(trained / "models" / "model.onnx")


@pytest.fixture(scope="module")
def network(trained):
    """Return the Keras model."""
    return load_model(trained / "models" / "model.keras")


@pytest.fixture(scope="module")
def images(trained):
    """Return test images, uint8 (N, 32, 32, 3)."""
    return np.load(trained / "images.npz")["test"]


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    """Write the images as PNG files. Sorting them by name keeps the order of the images."""
    folder = tmp_path_factory.mktemp("images")
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture
def predict(trained):
    """Return a function that runs `leaf predict` and returns exit status, stdout and stderr."""

    def run(*arguments, model=trained / "models" / "model.onnx", **settings):
        done = CliRunner().invoke(app, ["predict", *map(str, arguments), "--model", str(model)], **settings)
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stdout, done.stderr

    return run


def test_arrays_paths_and_opened_images_give_equal_predictions(model, images, folder):
    files = sorted(folder.iterdir())
    first, *others = [
        [(row.probability, row.known) for row in model.predict(inputs)]
        for inputs in (images, list(images), files, [Image.open(file) for file in files])
    ]
    assert others == [first] * 3


def test_probabilities_equal_evaluate(model, network, images):
    expected = predict_probabilities(network, images, temperature=1.5)[:, 1]
    assert np.allclose([row.probability for row in model.predict(images)], expected, atol=1e-6)


def test_views_are_averaged_as_in_evaluate(model, network, images):
    expected = predict_probabilities(network, images, views=9, temperature=1.5)[:, 1]
    result = [row.probability for row in model.predict(images, views=9)]
    assert np.allclose(result, expected, atol=1e-6)
    assert not np.allclose(result, [row.probability for row in model.predict(images)], atol=1e-6)


def test_label_depends_on_the_threshold(model, images):
    rows = model.predict(images)
    assert {row.threshold for row in rows} == {0.4}
    assert all((row.label == "unhealthy") == (row.probability >= 0.4) for row in rows)


def test_prediction_does_not_depend_on_the_other_images(model, images):
    alone = [model.predict(image)[0].probability for image in images[:3]]
    assert np.allclose(alone, [row.probability for row in model.predict(images[:3])], atol=1e-6)


def test_most_leaves_are_in_distribution_and_cartoons_are_not(model, images, trained):
    assert np.mean([row.known for row in model.predict(images)]) >= 0.8
    assert not any(row.known for row in model.predict(np.load(trained / "images.npz")["cartoons"]))


def test_heatmaps_equal_keras(model, network, images):
    result = model.heatmaps(images)
    assert 0.1 < result.mean() < 0.9
    np.testing.assert_allclose(result, compute_heatmaps(network, images), atol=1e-4)


def test_keras_is_used_for_model_keras_and_for_an_empty_onnx_file(model, trained, images, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "copy")
    decision = tmp_path / "copy" / "data" / "scored" / "decision.json"
    decision.write_text(json.dumps(json.loads(decision.read_text()) | {"without_onnx": "layer x"}))
    (tmp_path / "copy" / "models" / "model.onnx").write_bytes(b"")
    expected = [row.probability for row in model.predict(images)]
    for name, line in (("model.keras", ""), ("model.onnx", "model.onnx: layer x; using Keras instead\n")):
        rows = leaf.load(tmp_path / "copy" / "models" / name).predict(images)
        assert np.allclose([row.probability for row in rows], expected, atol=1e-6)
        assert capsys.readouterr().err.endswith(line)


def test_predict_with_heatmaps_imports_neither_keras_nor_tensorflow(trained, folder, tmp_path):
    program = """
import sys
from leaf.cli import app
try:
    app(sys.argv[1:])
finally:
    assert "onnxruntime" in sys.modules
    assert not {"keras", "tensorflow", "jax", "torch", "pandas", "sklearn"} & set(sys.modules)
"""
    model, maps = trained / "models" / "model.onnx", tmp_path / "maps"
    command = ["predict", folder / "000.png", "--model", model, "--views", "9", "--heatmap", maps, "--json"]
    done = subprocess.run([sys.executable, "-c", program, *map(str, command)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["image"] == str(folder / "000.png")
    assert len(list(maps.iterdir())) == 1


@pytest.mark.parametrize("views", [0, 17])
def test_invalid_number_of_views_is_rejected(model, images, views):
    with pytest.raises(LeafError, match=f"views: {views} .*1 to 16"):
        model.predict(images[:1], views)


def test_command_agrees_with_the_python_api(predict, model, folder):
    status, out, _ = predict(folder, "--json")
    assert status == 0
    expected = [vars(row) for row in model.predict(sorted(map(str, folder.iterdir())))]
    assert json.loads(out) == expected


def test_unreadable_files_are_listed_at_the_end_and_the_others_predicted(predict, folder, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    status, out, err = predict(tmp_path / "broken.jpg", tmp_path / "missing.jpg", folder / "000.png", "--csv")
    assert status == 1
    assert [line.split(",")[0] for line in out.splitlines()] == ["image", str(folder / "000.png")]
    assert err.splitlines()[-2:] == [
        f"not read: {tmp_path / 'broken.jpg'}: text, not a JPEG, PNG, WebP, BMP, TIFF, GIF, JPEG 2000, AVIF or HEIC "
        "image",
        f"not read: {tmp_path / 'missing.jpg'}: no such file or directory",
    ]


def test_list_on_standard_input_keeps_its_order(predict, folder):
    names = [str(folder / "003.png"), str(folder / "001.png")]
    for listed in ("\n".join(names), "\0".join(names), "\r\n".join(names).encode("utf-16")):
        _, out, _ = predict("-", "--csv", input=listed)
        assert [line.split(",")[0] for line in out.splitlines()[1:]] == names


def test_standard_error_counts_images_without_a_class_unless_quiet(predict, tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    status, out, err = predict(tmp_path / "red.png")
    assert (status, out.endswith("  not like the training images\n")) == (0, True)
    assert "not like the training images: 1 of 1 image. " in err
    assert predict(tmp_path / "red.png", "--quiet")[2] == ""


def test_each_heatmap_is_written_as_a_png_file(predict, folder, tmp_path):
    predict(folder / "000.png", folder / "001.png", "--heatmap", tmp_path / "maps")
    assert [Image.open(file).size for file in sorted((tmp_path / "maps").iterdir())] == [(288, 288)] * 2
    assert (tmp_path / "maps" / "0002-001.png").is_file()


@pytest.mark.parametrize(
    ("name", "why"),
    [("model.keras", "changed since it was trained"), ("model.onnx", "SHA-256 is")],
)
def test_model_changed_after_training_is_rejected(trained, tmp_path, name, why):
    shutil.copytree(trained, tmp_path / "copy")
    model = tmp_path / "copy" / "models" / name
    model.write_bytes(model.read_bytes() + b" ")
    with pytest.raises(LeafError, match=why):
        leaf.load(model)


def test_model_can_be_moved_with_its_three_files(trained, tmp_path, images, model):
    for name in ("models/model.onnx", "models/run.json", "data/scored/decision.json", "data/scored/ood.npz"):
        shutil.copy(trained / name, tmp_path)
    assert leaf.load(tmp_path / "model.onnx").predict(images) == model.predict(images)


def test_missing_decision_file_is_rejected_by_name(trained, tmp_path):
    shutil.copytree(trained / "models", tmp_path / "models")
    with pytest.raises(LeafError, match=r"decision\.json: no such file"):
        leaf.load(tmp_path / "models" / "model.onnx")


def test_help_shows_examples_and_respects_no_color():
    for command in ("predict", "serve", "export"):
        out = CliRunner().invoke(app, [command, "--help"], env={"NO_COLOR": "1"}).stdout
        assert "Example" in out
        assert not re.search("\x1b\\[3[0-9]", out)


def test_unusual_file_names_do_not_stop_the_other_predictions(trained, images, tmp_path, monkeypatch, capfd):
    names = [b"bad\xff.png", b"e" * 251 + b".png", "é×\x1b[31m.png".encode()]
    (tmp_path / "in").mkdir()
    for name in names:
        with (tmp_path / "in" / os.fsdecode(name)).open("wb") as file:
            Image.fromarray(images[0]).save(file, "PNG")
    maps, model = tmp_path / "maps", trained / "models" / "model.keras"
    arguments = ["predict", tmp_path / "in", "a" * 5000 + ".png", "--csv", "--heatmap", maps, "--model", model]
    monkeypatch.setattr("sys.argv", ["leaf", *map(str, arguments)])
    with pytest.raises(SystemExit, match="1"):
        main()
    stdout, stderr = capfd.readouterr()
    assert len(stdout.splitlines()) == 1 + len(names)
    assert len(list(maps.iterdir())) == len(names)
    assert re.search(r"not read: a+…a+\.png: file name too long", stderr)
