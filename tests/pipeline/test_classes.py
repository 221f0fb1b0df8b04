"""Run the stages, the commands and the exported model with 9 and 38 classes of small images."""

import importlib
import json
import os
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

import leaf
from leaf.cli import app
from leaf.params import Params
from leaf.python_api import new_project
from leaf.serve.web import create_app
from leaf.store import read_array, read_json, read_table

pytestmark = pytest.mark.slow

STAGES = ("ingest", "clean", "split", "balance", "train", "evaluate", "report")
ODD = ["healthy", "007", "yes", "leaf rust", "<b>bold", "-dash", "a, b", "🍂", "null"]
SIDE = 24
TEST_IMAGE = "the number of a test image"
RECIPE = {
    "dataset": "leaves",
    "classes": "auto",
    "image_size": SIDE,
    "backbone": "cnn_small",
    "epochs": 10,
    "batch_size": 16,
    "smote_neighbors": 2,
    "validation_size": 0.25,
    "test_size": 0.25,
    "same_photo": False,
    "learning_rate": {"policy": "constant", "base": 2e-3, "max": 2e-3},
    "augmentation": {"mixup": 0.2, "cutmix": 0.2},
    "label_smoothing": 0.1,
    "calibrate": "temperature",
}


def write_images(folder, names):
    """Write twelve noisy images of one color per class, and four more for every second class."""
    random = np.random.default_rng(len(names))
    colors = random.uniform(20, 235, (len(names), 3))
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for image in range(12 + 4 * (number % 2)):
            noise = random.normal(0, 25, (SIDE, SIDE, 3))
            cv2.imwrite(str(folder / name / f"{image}.png"), np.clip(colors[number] + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module", params=[9, 38])
def classes(request, tmp_path_factory):
    """Run every stage in a new working directory and return the class names."""
    names = sorted(ODD[: request.param] + [f"class {number:02}" for number in range(9, request.param)])
    folder, before = tmp_path_factory.mktemp(f"classes-{request.param}"), Path.cwd()
    new_project(folder, Params.model_validate(RECIPE))
    write_images(folder / "leaves", names)
    os.chdir(folder)
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    try:
        for stage in STAGES:
            importlib.import_module(f"stages.{stage}").main()
        yield ["healthy", *(name for name in names if name != "healthy")]
    finally:
        patch.undo()
        os.chdir(before)


def test_metrics_name_every_class(classes):
    read = {name: read_json(f"metrics/{name}.json") for name in ("ingest", "clean", "balance", "evaluate")}
    counts = [
        *(read["ingest"]["classes"], read["clean"]["kept_classes"], read["clean"]["after_outliers_classes"]),
        *(read["balance"]["before"], read["balance"]["after"], read["evaluate"]["test"]["recall"]),
    ]
    assert [set(each) for each in counts] == [set(classes)] * 6
    assert len(set(read["balance"]["after"].values())) == 1


def test_splits_keep_class_proportions(classes):
    labels = read_table("data/split/splits.csv").merge(read_table("data/cleaned/decisions.csv"), on="image")
    counts = labels.groupby(["split", "label"]).size().unstack()
    assert counts.shape == (3, len(classes))
    assert (counts.loc["test"] / counts.sum()).between(0.2, 0.3).all()


def test_probabilities_match_predictions(classes):
    table, shares = read_table("data/scored/predictions.csv"), read_array("data/scored/probabilities.npy")
    assert table.columns.tolist() == ["image", "source", "split", "label", "predicted", "probability"]
    assert shares.shape == (len(table), len(classes))
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)
    assert table["predicted"].tolist() == shares.argmax(axis=1).tolist()
    np.testing.assert_allclose(table["probability"], shares.max(axis=1), atol=1e-6)


def test_model_beats_the_largest_class(classes):
    evaluate = read_json("metrics/evaluate.json")
    assert evaluate["test"]["accuracy"] > 1.2 * evaluate["baseline"]["majority_accuracy"]
    scores = read_json("data/scored/scores.json")["splits"]["test"]
    assert np.shape(scores["confusion"]) == (len(classes), len(classes))
    assert ("top_3_accuracy" in scores) == (len(classes) > 5)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["results"], "recall, lowest first: "),
        (["why", TEST_IMAGE], "; probability of "),
        (["labels"], "likely label errors: "),
        (["leak", "--learner", "logistic", "--repeats", "1", "-S", "folds=3"], "learner: logistic, on histograms"),
        (["lr-range", "--updates", "12"], "proposed: -S learning_rate.base="),
        (["summary"], "dense"),
    ],
)
def test_command_runs_with_many_classes(classes, command, expected):
    image = read_table("data/scored/predictions.csv")["image"][0]
    done = CliRunner().invoke(
        app, [str(image) if word == TEST_IMAGE else word for word in command], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    assert expected in done.output


@pytest.mark.parametrize("classes", [9], indirect=True)
def test_command_python_server_and_onnx_return_equal_probabilities(classes):
    files = sorted(Path("leaves").glob("*/0.png"))
    model = leaf.load("models/model.keras")
    rows = model.predict(files)
    assert [list(row.probabilities) for row in rows] == [classes] * 9
    expected = [list(row.probabilities.values()) for row in rows]
    done = CliRunner().invoke(app, ["predict", "--json", *map(str, files)], catch_exceptions=False)
    with TestClient(create_app(model)) as client:
        responses = [client.post("/api/predict", files={"image": file.read_bytes()}).json() for file in files]
    for answers in (json.loads(done.stdout), responses):
        assert [answer["label"] for answer in answers] == [row.label for row in rows]
        np.testing.assert_allclose([list(answer["probabilities"].values()) for answer in answers], expected, atol=1e-6)
    session = onnxruntime.InferenceSession("models/model.onnx")
    pixels = np.stack([cv2.imread(str(file))[..., ::-1] for file in files]).astype(np.float32)
    probabilities = session.run(None, {session.get_inputs()[0].name: pixels})[0]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_dvc_runs_the_pipeline_on_five_synthetic_classes(clone, small):
    kinds = ["healthy", "spots", "blight", "mildew", "holes"]
    project = clone("kinds")
    project.set(**small, classes=kinds)
    project.run("dvc", "repro")
    recall = read_json(project.folder / "metrics/evaluate.json")["test"]["recall"]
    assert set(recall) == set(kinds)
    assert "recall, lowest first: " in project.run("leaf", "results").stdout
    page = (project.folder / "reports/report.html").read_text(encoding="utf-8")
    assert all(kind in page for kind in kinds)
