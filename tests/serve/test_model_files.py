"""Test reading the run files of a model: run.json, decision.json and ood.npz."""

import json

import numpy as np
import pytest

from leaf.errors import LeafError
from leaf.evaluate import out_of_distribution as ood
from leaf.serve.classifier import _check_metadata, read_model_files
from tests.damaged import assert_read_or_refused, damaged

RUN = {"model_sha256": "0" * 64, "classes": ["healthy", "unhealthy"], "fit": "pad", "backbone": "cnn_small"}
DECISION = {"model_sha256": "0" * 64, "threshold": 0.4, "temperature": 1.5, "min_confidence": 0.7, "views": 2}
DECISION["test_accuracy"] = 0.9


@pytest.fixture
def model(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"network")
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    (tmp_path / "decision.json").write_text(json.dumps(DECISION))
    return tmp_path / "model.keras"


def test_files_give_classes_decision_and_fit(model):
    read = read_model_files(model)
    assert (read.classes, read.threshold, read.temperature, read.views, read.fit) == (
        ("healthy", "unhealthy"), 0.4, 1.5, 2, "pad",
    )  # fmt: skip


def test_fit_of_an_older_run_is_crop(model):
    model.with_name("run.json").write_text(json.dumps({key: RUN[key] for key in ("model_sha256", "classes")}))
    assert read_model_files(model).fit == "crop"


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        *(("decision.json", "temperature", value) for value in ("NaN", "-1", "0", "1e400", '"1"', "null")),
        *(("decision.json", "views", value) for value in ("1e400", "0", "17", "true", "1.5", "9" * 400)),
        *(("decision.json", "min_confidence", value) for value in ("NaN", "-0.1", "1.1", "null")),
        *(("decision.json", "threshold", value) for value in ("NaN", "-0.1", "1e400", "[]")),
        *(("run.json", "classes", value) for value in ('"ab"', "[]", "[1, 2]", "null", '["one"]')),
        *(("run.json", "model_sha256", value) for value in ("1", '"short"', "null")),
        ("run.json", "fit", '"squeeze"'),
    ],
)
def test_invalid_value_is_rejected_with_its_file_and_key(model, file, key, value):
    valid = json.loads(model.with_name(file).read_text()) | {key: "HERE"}
    model.with_name(file).write_text(json.dumps(valid).replace('"HERE"', value))
    with pytest.raises(LeafError, match=rf"{file}: {key}: "):
        read_model_files(model)


@pytest.mark.parametrize("text", ["", "[]", "7", "{", "[" * 100_000, "9" * 5000, "null"])
def test_file_without_a_mapping_is_rejected_in_one_line(model, text):
    model.with_name("decision.json").write_text(text)
    with pytest.raises(LeafError, match=r"decision\.json: "):
        read_model_files(model)


def test_fuzzed_files_are_read_or_rejected_in_one_line(model):
    for file in (model.with_name("run.json"), model.with_name("decision.json")):
        valid = file.read_bytes()
        assert_read_or_refused(lambda: read_model_files(model), file, damaged(valid, 1500, 2))
        file.write_bytes(valid)


def test_fuzzed_detectors_are_read_or_rejected_in_one_line(tmp_path):
    small, wide = (ood.Gaussian(np.zeros(n, np.float32), np.eye(n, dtype=np.float32), 3.0) for n in (4, ood.STATISTICS))
    path = tmp_path / "ood.npz"
    ood.write(ood.OodDetector(small, wide, np.zeros((1, 16, 16, 3), np.float32)), "0" * 64, path)
    valid = path.read_bytes()
    assert ood.read(path, "0" * 64).features.limit == 3
    assert_read_or_refused(lambda: ood.read(path, "0" * 64), path, damaged(valid, 2000))


def test_detector_without_images_or_limits_is_rejected(tmp_path):
    small, wide = (ood.Gaussian(np.zeros(n, np.float32), np.eye(n, dtype=np.float32), np.nan) for n in (4, 28))
    ood.write(ood.OodDetector(small, wide, np.zeros((0, 16, 16, 3), np.float32)), "0" * 64, tmp_path / "ood.npz")
    with pytest.raises(LeafError, match=r"ood\.npz: damaged"):
        ood.read(tmp_path / "ood.npz", "0" * 64)


def test_decision_of_another_run_is_rejected(model):
    model.with_name("decision.json").write_text(json.dumps(DECISION | {"model_sha256": "1" * 64}))
    with pytest.raises(LeafError, match=r"run\.json.*decision\.json"):
        read_model_files(model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("threshold", 0.0),
        ("temperature", 2.0),
        ("min_confidence", 0.0),
        ("views", 1),
        ("test_accuracy", 1.0),
        ("fit", "crop"),
        ("backbone", "resnet50"),
        ("classes", ("unhealthy", "healthy")),
    ],
)
def test_values_that_differ_from_the_onnx_metadata_are_rejected(model, key, value):
    read = read_model_files(model)
    metadata = RUN | DECISION
    _check_metadata(model, metadata, read)
    file = model.with_name("run.json" if key in RUN else "decision.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    with pytest.raises(LeafError, match=key):
        _check_metadata(model, metadata, read_model_files(model))
