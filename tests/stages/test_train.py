"""Test the `train` stage: outputs, errors and distributed training."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.faults.killed_runs import write_inputs

ROOT = Path(__file__).parents[2]
SIZE = 16


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write tiny outputs of the stages before `train`: 24 training, 8 synthetic and 16 validation images."""
    folder = tmp_path_factory.mktemp("project")
    write_inputs(folder, train=24, validation=16, synthetic=8, side=SIZE)
    values: dict[str, Any] = {"image_size": SIZE, "backbone": "cnn_small", "batch_size": 8, "epochs": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return folder


def write(path: Path, **columns: Any) -> None:
    pd.DataFrame(columns).to_csv(path, index=False)


@pytest.fixture
def work(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the project and enter the copy, which has its own checkpoint folder."""
    shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("LEAF_STATE", str(tmp_path / "state"))
    return tmp_path / "project"


def run() -> None:
    from leaf.errors import one_line_errors
    from stages.train import main

    with one_line_errors():
        main()


def error_of(capsys: pytest.CaptureFixture) -> str:
    """Run the stage, check that it exits with status 2 and one line, and return the line."""
    with pytest.raises(SystemExit) as exit_info:
        run()
    assert exit_info.value.code == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


@pytest.mark.slow
def test_two_runs_are_byte_identical(work: Path) -> None:
    written = []
    for _ in range(2):
        run()
        files = sorted(path for path in (work / "models").rglob("*") if path.is_file())
        written.append({str(path): path.read_bytes() for path in files})
        shutil.rmtree(work / "models")
    assert written[0] == written[1]
    assert {path.name for path in map(Path, written[0])} > {"model.keras", "history.csv", "run.json", "loss.tsv"}


@pytest.mark.slow
def test_run_json_describes_the_network_and_the_training_run(work: Path) -> None:
    from leaf import store
    from leaf.models.saving import load_model

    run()
    info = json.loads((work / "models/run.json").read_text())
    history = pd.read_csv(work / "models/history.csv")
    best = history["validation_accuracy"].idxmax()
    assert info["best_epoch"] == history["epoch"][best]
    assert info["best_validation_accuracy"] == history["validation_accuracy"][best]
    assert (info["epochs"], info["stopped"], info["steps_per_epoch"]) == (2, "epochs", 4)
    assert (info["backbone"], info["image_size"], info["classes"]) == ("cnn_small", SIZE, ["healthy", "unhealthy"])
    assert info["model_sha256"] == store.sha256("models/model.keras")
    assert info["parameters"] == load_model("models/model.keras").count_params()
    assert set(info["versions"]) == {"python", "keras", "numpy", "backend", "device", "driver"}
    assert (info["precision"], info["deterministic"]) == ("float32", True)
    metrics = json.loads((work / "metrics/train.json").read_text())
    assert metrics.keys() == {"epochs", "best_epoch", "best_validation_accuracy", "parameters", "trainable_parameters"}
    assert metrics.items() <= info.items()
    took = store.load_cached_value("epochs", f"cnn_small {SIZE} 0 8 float32 adam", store.EPOCH)
    assert took["images"] == 32
    assert took["seconds"] > 0.01
    assert took["memory"] > 50 * 2**20


@pytest.mark.slow
def test_frozen_normalization_stays_frozen_after_the_frozen_epochs(work: Path) -> None:
    from leaf import store
    from leaf.models.build import build_model
    from leaf.models.saving import load_model
    from leaf.models.summary import summarize_model

    values = {"backbone": "cnn_medium", "frozen_epochs": 1, "freeze_normalization": True, "weight_averaging": 0}
    (work / "params.yaml").write_text(yaml.safe_dump({"image_size": SIZE, "batch_size": 8, "epochs": 2, **values}))
    run()
    model = load_model("models/model.keras", store.sha256("models/model.keras"))
    assert not np.any(model.get_layer("stage_0_conv_0_norm").moving_mean)
    assert np.any(model.get_layer("batch_normalization").moving_mean)
    info = json.loads((work / "models/run.json").read_text())
    assert info["epochs"] == 2
    built = summarize_model(build_model("cnn_medium", SIZE, freeze_normalization=True))
    assert info["trainable_parameters"] == built.trainable


def test_missing_input_causes_a_one_line_error(work: Path, capsys: pytest.CaptureFixture) -> None:
    (work / "data/split/splits.csv").unlink()
    assert "data/split/splits.csv: no such file" in error_of(capsys)


def test_empty_validation_split_causes_a_one_line_error(work: Path, capsys: pytest.CaptureFixture) -> None:
    write(work / "data/split/splits.csv", image=range(40), split=["train"] * 40)
    assert "data/split/splits.csv: the validation split" in error_of(capsys)


def test_index_of_the_wrong_length_causes_a_one_line_error(work: Path, capsys: pytest.CaptureFixture) -> None:
    write(work / "data/balanced/index.csv", image=range(7), label=[0] * 7, parent=range(7))
    assert "data/balanced/index.csv: 7 rows for 8 images" in error_of(capsys)


def test_unknown_backbone_causes_a_one_line_error(work: Path, capsys: pytest.CaptureFixture) -> None:
    (work / "params.yaml").write_text("backbone: convnext_ato\n")
    assert "backbone: 'convnext_ato'" in error_of(capsys)


def test_distributed_detector_causes_a_one_line_error(work: Path, capsys: pytest.CaptureFixture) -> None:
    detector = "backbone: autoencoder\nweight_averaging: 0\ndropout_at: input\n"
    (work / "params.yaml").write_text(f"{detector}distribution: data_parallel\n")
    assert "distribution: data_parallel; valid: none for autoencoder" in error_of(capsys)


def start_pair(folders: list[Path], state: Path) -> list[subprocess.Popen[str]]:
    """Start the stage as two processes of one training run, each in its own folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    variables = {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2", "KERAS_DISTRIBUTION_JOB_ADDRESSES": address}
    variables |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "LEAF_STATE": str(state)}
    variables["PYTHONPATH"] = str(ROOT)
    return [
        subprocess.Popen(
            [sys.executable, "-m", "stages.train"],
            cwd=folder,
            env={**os.environ, **variables, "KERAS_DISTRIBUTION_PROCESS_ID": str(number)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, folder in enumerate(folders)
    ]


def wait_for(pair: list[subprocess.Popen[str]], status: int) -> str:
    """Wait for both processes, check their exit status, and return the first one's stderr."""
    errors = [process.communicate()[1] for process in pair]
    assert [process.returncode for process in pair] == [status, status], errors[0][-2000:] + errors[1][-2000:]
    return errors[0]


@pytest.mark.full
@pytest.mark.slow
def test_two_processes_stop_together_and_resume_bit_identically(work: Path, tmp_path: Path) -> None:
    pytest.importorskip("jax")
    values = {"image_size": SIZE, "backbone": "cnn_small", "batch_size": 8, "epochs": 8, "patience": 1000}
    (work / "params.yaml").write_text(yaml.safe_dump({**values, "distribution": "data_parallel"}))
    second = tmp_path / "second"
    shutil.copytree(work, second)
    shutil.copytree(work, tmp_path / "undisturbed")
    pair = start_pair([work, second], tmp_path / "state")
    while not list((tmp_path / "state").rglob("*.npz")):
        assert pair[0].poll() is None, pair[0].communicate()[1][-2000:]
        time.sleep(0.05)
    pair[1].send_signal(signal.SIGTERM)
    wait_for(pair, 128 + signal.SIGTERM)
    assert not (work / "models/model.keras").exists()
    assert "resuming after epoch" in wait_for(start_pair([work, second], tmp_path / "state"), 0)
    wait_for(start_pair([tmp_path / "undisturbed", second], tmp_path / "other"), 0)
    for name in ("model.keras", "history.csv"):
        assert (work / "models" / name).read_bytes() == (tmp_path / "undisturbed" / "models" / name).read_bytes()
    assert (work / "models/live").is_dir()
    assert not (second / "models").exists()


@pytest.mark.slow
def test_range_test_proposes_rates_within_its_limits(work: Path) -> None:
    from leaf.params import read_params
    from leaf.train.lr_finder import run_range_test

    test = run_range_test(read_params("train"), 1e-5, 1.0, updates=40)
    assert 1e-5 <= test.base <= test.max <= 1
    assert not (work / "models").exists()


@pytest.mark.slow
def test_linear_probe_is_saved_as_a_network_with_zero_epochs(work: Path) -> None:
    from leaf.models.prediction import predict_probabilities
    from leaf.models.saving import load_model

    labels = pd.read_csv(work / "data/cleaned/decisions.csv")["label"]
    values = {"image_size": SIZE, "backbone": "cnn_small", "optimizer": "lbfgs", "freeze_depth": "all", "dropout": 0}
    (work / "params.yaml").write_text(yaml.safe_dump({**values, "augmentation": {"flip": "none"}}))
    run()
    info = json.loads((work / "models/run.json").read_text())
    assert (info["epochs"], info["best_epoch"], info["stopped"]) == (0, 0, "converged")
    assert info["probe"]["iterations"] > 0
    history = pd.read_csv(work / "models/history.csv")
    assert history["learning_rate"].isna().all()
    validation = np.load(work / "data/ingested/images.npy")[24:]
    predicted = predict_probabilities(load_model(work / "models/model.keras"), validation).argmax(1)
    assert history["validation_accuracy"].tolist() == [(predicted == labels[24:]).mean()]
