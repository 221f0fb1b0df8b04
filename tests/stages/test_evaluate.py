"""Test the `evaluate` stage with a stub network that classifies by brightness."""

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import stages.evaluate
from leaf.errors import LeafError
from leaf.models.onnx_inference import Head
from leaf.store import new_array, read_array, read_json, read_table, write_json, write_table

NUMBERS = np.arange(120)
LABELS = NUMBERS % 2


def stub_functions():
    """Return replacements for the Keras functions that classify by brightness."""

    def load(path, sha256=None):
        if hashlib.sha256(Path(path).read_bytes()).hexdigest() != sha256:
            raise LeafError(f"{path}: changed since it was trained")
        return "network"

    def probabilities(model, images, batch_size=256, views=1, temperature=1.0):
        second = 1 / (1 + np.exp(-(images.mean(axis=(1, 2, 3)) - 128) / 20 / temperature))
        return np.stack([1 - second, second], axis=1)

    def features(model, images):
        return images.reshape(len(images), -1)[:, :3].astype(np.float32)

    def last_map(images):
        return images.mean(axis=3, keepdims=True)

    def network(model):
        return SimpleNamespace(head=Head(np.array([[-1.0], [1.0]], np.float32), None, 8), last_map=last_map)

    def write(model, metadata, images, path):
        Path(path).write_bytes(b"")
        return "too large"

    return {
        "saving.load_model": load,
        "prediction.predict_probabilities": probabilities,
        "prediction.extract_features": features,
        "prediction.KerasNetwork": network,
        "onnx_export.write": write,
    }


@pytest.fixture
def evaluate(monkeypatch):
    """Return the stage module with the stub network."""
    for name, function in stub_functions().items():
        monkeypatch.setattr(f"leaf.models.{name}", function)
    return stages.evaluate


@pytest.fixture
def project(workspace):
    """Write 60 training, 30 validation and 29 test images and a removed one. Every ninth image is misclassified."""
    shown = np.where(NUMBERS % 9 == 0, 1 - LABELS, LABELS)
    with new_array("data/ingested/images.npy", (120, 8, 8, 3), np.uint8) as images:
        images[:] = np.where(shown == 1, 180, 70)[:, None, None, None] + np.arange(8, dtype=np.uint8)[:, None]
    sources = [f"{'a' if number % 3 else 'b'}/{number}.png" for number in NUMBERS]
    write_table(pd.DataFrame({"image": NUMBERS, "source": sources}), "data/ingested/index.csv")
    names = {"label": [0, 1], "name": ["healthy", "unhealthy"], "images": [60, 60]}
    write_table(pd.DataFrame(names), "data/ingested/classes.csv")
    decisions = {"image": NUMBERS, "label": LABELS, "kept": (NUMBERS < 119).astype(int), "group": NUMBERS}
    decisions |= {"reason": np.where(NUMBERS < 119, "", "outlier"), "reference": np.where(NUMBERS < 119, "", "119")}
    write_table(pd.DataFrame(decisions), "data/cleaned/decisions.csv")
    write_splits("test")
    write_synthetic(0)
    Path("models").mkdir()
    Path("models/model.keras").write_bytes(b"network")
    run = {"epochs": 3, "best_epoch": 2, "best_validation_accuracy": 0.9, "parameters": 10, "trainable_parameters": 8}
    run |= {"classes": ["healthy", "unhealthy"], "image_size": 8, "fit": "crop", "backbone": "cnn_small", "seed": 1}
    write_json(run | {"model_sha256": hashlib.sha256(b"network").hexdigest()}, "models/run.json")


def write_splits(last):
    splits = np.repeat(["train", "validation", last], [60, 30, 29])
    write_table(pd.DataFrame({"image": NUMBERS[:119], "split": splits}), "data/split/splits.csv")


def write_synthetic(parent):
    columns = {"image": [0], "label": [1], "parent": [parent], "neighbour": [2], "weight": [0.5]}
    write_table(pd.DataFrame(columns), "data/balanced/index.csv")


def test_predictions_list_held_out_images_with_source_and_split(evaluate, project):
    evaluate.main()
    table = read_table("data/scored/predictions.csv")
    assert table["image"].tolist() == list(range(60, 119))
    assert table["split"].value_counts().to_dict() == {"validation": 30, "test": 29}


def test_accuracy_reflects_the_planted_errors(evaluate, project):
    evaluate.main()
    assert read_json("metrics/evaluate.json")["test"]["accuracy"] == pytest.approx(25 / 29)  # wrong: 90, 99, 108, 117


def test_each_gallery_image_has_a_heatmap(evaluate, project):
    evaluate.main()
    heatmaps = read_array("data/scored/heatmaps.npy")
    assert heatmaps.dtype == np.float32
    assert heatmaps.shape == (len(read_table("data/scored/gallery.csv")), 8, 8)


def test_decision_json_is_written_for_predictions(evaluate, project, set_params):
    set_params(threshold=0.25)
    evaluate.main()
    decision = read_json("data/scored/decision.json")
    accuracy = read_json("metrics/evaluate.json")["test"]["accuracy"]
    sha256 = read_json("models/run.json")["model_sha256"]
    assert decision == {
        "threshold": 0.25,
        "temperature": 1.0,
        "min_confidence": read_json("data/scored/scores.json")["min_confidence"],
        "error_rate": 0.05,
        "views": 1,
        "test_accuracy": accuracy,
        "model_sha256": sha256,
        "without_onnx": "too large",
        "onnx_sha256": hashlib.sha256(b"").hexdigest(),
    }


def test_without_a_test_split_metrics_are_null(evaluate, project, capsys):
    write_splits("train")
    evaluate.main()
    test = read_json("metrics/evaluate.json")["test"]
    assert test.pop("recall") == {"healthy": None, "unhealthy": None}
    assert set(test.values()) == {None}
    assert "Set test_size" in capsys.readouterr().out


def test_output_has_accuracy_interval_and_baselines(evaluate, project, capsys):
    evaluate.main()
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("test: accuracy 86.2% (95% CI 69.4–94.5%) on 29 images")
    assert second.startswith("baselines: largest class ")
    assert third == "models/model.onnx is empty, so predictions require Keras: too large"


def test_changed_model_file_is_rejected(evaluate, project):
    Path("models/model.keras").write_bytes(b"another")
    with pytest.raises(LeafError, match="changed since it was trained"):
        evaluate.main()


def test_synthetic_image_with_a_test_parent_is_rejected(evaluate, project):
    write_synthetic(100)
    with pytest.raises(LeafError, match=r"synthetic image 0\b.*parent 100\b"):
        evaluate.main()


def test_group_in_train_and_test_is_rejected(evaluate, project):
    decisions = read_table("data/cleaned/decisions.csv")
    write_table(decisions.assign(group=decisions["group"].replace(100, 3)), "data/cleaned/decisions.csv")
    with pytest.raises(LeafError, match=r"group 3 .*test.*train"):
        evaluate.main()


def test_removed_image_in_a_split_is_rejected(evaluate, project):
    decisions = read_table("data/cleaned/decisions.csv")
    write_table(
        decisions.assign(kept=decisions["kept"].where(decisions["image"] != 5, 0)), "data/cleaned/decisions.csv"
    )
    with pytest.raises(LeafError, match=r"image 5\b"):
        evaluate.main()
    assert not Path("data/scored").exists()


def test_threshold_is_rejected_for_three_classes(evaluate, project, set_params):
    Path("data/ingested/classes.csv").write_text("label,name,images\n0,a,40\n1,b,40\n2,c,40\n")
    set_params(classes="auto", threshold=0.4)
    with pytest.raises(LeafError, match=r"threshold: 0.4; valid: 0.5"):
        evaluate.main()
