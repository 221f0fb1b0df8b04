"""The stage train: what it writes, and what it says of inputs that it cannot use."""

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

PIPELINE = Path(__file__).parents[2] / "dvc.yaml"
SIZE = 16


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny outputs of the stages before train: 24 training images, 8 synthetic ones, 16 for validation."""
    folder = tmp_path_factory.mktemp("project")
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 40)
    images = draw.integers(0, 200, (40, SIZE, SIZE, 3)).astype(np.uint8)
    for name in ("ingested", "cleaned", "split", "balanced"):
        (folder / "data" / name).mkdir(parents=True)
    np.save(folder / "data/ingested/images.npy", images)
    np.save(folder / "data/balanced/images.npy", images[:8] + 1)
    write(folder / "data/cleaned/decisions.csv", image=range(40), label=labels)
    write(folder / "data/split/splits.csv", image=range(40), split=["train"] * 24 + ["validation"] * 16)
    write(folder / "data/balanced/index.csv", image=range(8), label=labels[:8])
    write(folder / "data/ingested/classes.csv", label=[0, 1], name=["healthy", "unhealthy"], images=[20, 20])
    values: dict[str, Any] = {"image_size": SIZE, "backbone": "cnn_small", "batch_size": 8, "epochs": 2}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    shutil.copy(PIPELINE, folder)
    return folder


def write(path: Path, **columns: Any) -> None:
    pd.DataFrame(columns).to_csv(path, index=False)


@pytest.fixture
def work(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project to spoil, with a state folder of its own; the working directory."""
    shutil.copytree(project, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("LEAF_STATE", str(tmp_path / "state"))
    return tmp_path / "project"


def run() -> None:
    from leaf.errors import one_line_errors
    from stages.train import main

    with one_line_errors():
        main()


def refused(capsys: pytest.CaptureFixture) -> str:
    """Run the stage, which must end with status 2 and one line; that line."""
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    return said


@pytest.mark.slow
def test_two_runs_write_the_same_bytes(work: Path) -> None:
    written = []
    for _ in range(2):
        run()
        files = sorted(path for path in (work / "models").rglob("*") if path.is_file())
        written.append({str(path): path.read_bytes() for path in files})
        shutil.rmtree(work / "models")
    assert written[0] == written[1]
    assert {path.name for path in map(Path, written[0])} > {"model.keras", "history.csv", "run.json", "loss.tsv"}


@pytest.mark.slow
def test_run_json_says_what_was_trained_and_how_it_went(work: Path) -> None:
    from leaf import store
    from leaf.models.saving import load_model

    run()
    said = json.loads((work / "models/run.json").read_text())
    history = pd.read_csv(work / "models/history.csv")
    best = history["validation_accuracy"].idxmax()
    assert said["best_epoch"] == history["epoch"][best]
    assert said["best_validation_accuracy"] == history["validation_accuracy"][best]
    assert (said["epochs"], said["stopped"], said["steps_per_epoch"]) == (2, "epochs", 4)
    assert (said["backbone"], said["image_size"], said["classes"]) == ("cnn_small", SIZE, ["healthy", "unhealthy"])
    assert said["model_sha256"] == store.sha256("models/model.keras")
    assert said["parameters"] == load_model("models/model.keras").count_params()
    assert set(said["versions"]) == {"python", "keras", "numpy", "backend", "device", "driver"}
    assert (said["precision"], said["deterministic"]) == ("float32", True)
    metrics = json.loads((work / "metrics/train.json").read_text())
    assert metrics.keys() == {"epochs", "best_epoch", "best_validation_accuracy", "parameters", "trainable_parameters"}
    assert metrics.items() <= said.items()
    took = store.load_cached_value("epochs", f"cnn_small {SIZE} 0 8 float32 adam", store.EPOCH)
    assert took["images"] == 32
    assert took["seconds"] > 0.01
    assert took["memory"] > 50 * 2**20


@pytest.mark.slow
def test_normalization_that_is_frozen_stays_so_when_the_backbone_thaws(work: Path) -> None:
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
    said = json.loads((work / "models/run.json").read_text())
    assert said["epochs"] == 2
    built = summarize_model(build_model("cnn_medium", SIZE, freeze_normalization=True))
    assert said["trainable_parameters"] == built.trainable


def test_a_missing_input_is_one_line(work: Path, capsys: pytest.CaptureFixture) -> None:
    (work / "data/split/splits.csv").unlink()
    assert "data/split/splits.csv: no such file" in refused(capsys)


def test_a_split_without_images_is_one_line(work: Path, capsys: pytest.CaptureFixture) -> None:
    write(work / "data/split/splits.csv", image=range(40), split=["train"] * 40)
    assert "data/split/splits.csv: the validation split" in refused(capsys)


def test_an_index_of_another_length_than_the_synthetic_images_is_one_line(
    work: Path, capsys: pytest.CaptureFixture
) -> None:
    write(work / "data/balanced/index.csv", image=range(7), label=[0] * 7)
    assert "data/balanced/index.csv: 7 rows for 8 images" in refused(capsys)


def test_an_unknown_backbone_is_one_line(work: Path, capsys: pytest.CaptureFixture) -> None:
    (work / "params.yaml").write_text("backbone: convnext_ato\n")
    assert "backbone: 'convnext_ato'" in refused(capsys)


def test_a_detector_that_is_to_be_distributed_is_one_line(work: Path, capsys: pytest.CaptureFixture) -> None:
    detector = "backbone: autoencoder\nweight_averaging: 0\ndropout_at: input\n"
    (work / "params.yaml").write_text(f"{detector}distribution: data_parallel\n")
    assert "distribution: data_parallel; valid for autoencoder, a detector: none" in refused(capsys)


def start_pair(folders: list[Path], state: Path) -> list[subprocess.Popen[str]]:
    """Start the stage as two processes of one training, each in a folder of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    together = {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2", "KERAS_DISTRIBUTION_JOB_ADDRESSES": address}
    together |= {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "LEAF_STATE": str(state)}
    together["PYTHONPATH"] = str(PIPELINE.parent)
    return [
        subprocess.Popen(
            [sys.executable, "-m", "stages.train"],
            cwd=folder,
            env={**os.environ, **together, "KERAS_DISTRIBUTION_PROCESS_ID": str(number)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, folder in enumerate(folders)
    ]


def ended(pair: list[subprocess.Popen[str]], status: int) -> str:
    """Wait for both processes, which must end with that status; what the first one said."""
    said = [process.communicate()[1] for process in pair]
    assert [process.returncode for process in pair] == [status, status], said[0][-2000:] + said[1][-2000:]
    return said[0]


@pytest.mark.full
@pytest.mark.slow
def test_two_processes_stop_together_and_resume_to_the_same_bits_and_only_the_first_writes(
    work: Path, tmp_path: Path
) -> None:
    pytest.importorskip("jax")
    values = {"image_size": SIZE, "backbone": "cnn_small", "batch_size": 8, "epochs": 8, "patience": 1000}
    (work / "params.yaml").write_text(yaml.safe_dump({**values, "distribution": "data_parallel"}))
    second = tmp_path / "second"
    shutil.copytree(work, second)
    shutil.copytree(work, tmp_path / "whole")
    pair = start_pair([work, second], tmp_path / "state")
    while not list((tmp_path / "state").rglob("*.npz")):
        assert pair[0].poll() is None, pair[0].communicate()[1][-2000:]
        time.sleep(0.05)
    pair[1].send_signal(signal.SIGTERM)
    ended(pair, 128 + signal.SIGTERM)
    assert not (work / "models/model.keras").exists()
    assert "resuming after epoch" in ended(start_pair([work, second], tmp_path / "state"), 0)
    ended(start_pair([tmp_path / "whole", second], tmp_path / "other"), 0)
    for name in ("model.keras", "history.csv"):
        assert (work / "models" / name).read_bytes() == (tmp_path / "whole" / "models" / name).read_bytes()
    assert (work / "models/live").is_dir()
    assert not (second / "models").exists()


@pytest.mark.slow
def test_the_range_test_proposes_rates_within_its_limits(work: Path) -> None:
    from leaf.params import read_params
    from leaf.train.lr_finder import run_range_test

    test = run_range_test(read_params("train"), 1e-5, 1.0, updates=40)
    assert 1e-5 <= test.base <= test.max <= 1
    assert not (work / "models").exists()


@pytest.mark.slow
def test_a_linear_probe_is_written_as_any_network_and_its_figures_are_those_of_no_epoch(work: Path) -> None:
    from leaf.models.prediction import predict_probabilities
    from leaf.models.saving import load_model

    labels = pd.read_csv(work / "data/cleaned/decisions.csv")["label"]
    write(work / "data/cleaned/decisions.csv", image=range(40), label=labels, group=range(40))
    write(work / "data/balanced/index.csv", image=range(8), label=labels[:8], parent=range(8))
    values = {"image_size": SIZE, "backbone": "cnn_small", "optimizer": "lbfgs", "freeze_depth": "all", "dropout": 0}
    (work / "params.yaml").write_text(yaml.safe_dump({**values, "augmentation": {"flip": "none"}}))
    run()
    said = json.loads((work / "models/run.json").read_text())
    assert (said["epochs"], said["best_epoch"], said["stopped"]) == (0, 0, "converged")
    assert said["probe"]["iterations"] > 0
    history = pd.read_csv(work / "models/history.csv")
    assert history["learning_rate"].isna().all()
    validation = np.load(work / "data/ingested/images.npy")[24:]
    predicted = predict_probabilities(load_model(work / "models/model.keras"), validation).argmax(1)
    assert history["validation_accuracy"].tolist() == [(predicted == labels[24:]).mean()]
