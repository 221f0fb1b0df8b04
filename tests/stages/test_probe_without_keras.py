"""Linear probes on cached features run without Keras, with outputs byte-identical to a run with Keras."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from leaf.params import Params
from leaf.python_api import new_project
from leaf.store import read_json
from leaf.synthesize import ImageCounts, draw_dataset, write_npz

ROOT = Path(__file__).parents[2]
PROBE = {"backbone": "cnn_small", "optimizer": "lbfgs", "freeze_depth": "all", "dropout": 0, "balance": "none"}


def set_params(folder: Path, **changes: object) -> None:
    settings = {"dataset": "leaves.npz", "image_size": 32, "augmentation": {"flip": "none"}, "views": 1}
    new_project(folder, Params.model_validate({**settings, **PROBE, **changes}))


def run(folder: Path, *names: str, path: Path = ROOT) -> None:
    for name in names:
        environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"}
        subprocess.run([sys.executable, "-m", f"stages.{name}"], cwd=folder, env=environment, check=True)


def outputs(folder: Path) -> dict[str, bytes]:
    files = [path for part in ("models", "data/scored", "metrics") for path in (folder / part).rglob("*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.is_file()}


def without_keras(folder: Path) -> Path:
    """Write stubs of Keras and TensorFlow that fail on import."""
    for name in ("keras", "tensorflow"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("raise RuntimeError('imported')")
    return folder


@pytest.mark.slow
def test_first_probe_is_evaluated_without_keras(tmp_path, monkeypatch):
    monkeypatch.setenv("LEAF_STATE", str(tmp_path / "state"))
    images, labels = draw_dataset(ImageCounts(60, 50, 2, 4, 4), 32, 7)
    set_params(tmp_path)
    write_npz(tmp_path / "leaves.npz", images, [("healthy", "unhealthy")[label] for label in labels])
    run(tmp_path, "ingest", "clean", "split", "balance", "train")
    run(tmp_path, "evaluate", path=without_keras(tmp_path / "without"))
    assert read_json(tmp_path / "metrics/evaluate.json")["test"]["accuracy"] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"split_seed": 7}, {"classes": ["healthy", "spots", "blight"]}])
def test_second_probe_needs_no_keras_and_is_byte_identical(tmp_path, monkeypatch, change):
    project, copy = tmp_path / "project", tmp_path / "copy"
    monkeypatch.setenv("LEAF_STATE", str(tmp_path / "state"))
    images, labels = draw_dataset(ImageCounts(60, 50, 2, 4, 4), 32, 7)
    set_params(project)
    write_npz(project / "leaves.npz", images, [("healthy", "unhealthy")[label] for label in labels])
    run(project, "ingest", "clean", "split", "balance", "train", "evaluate")
    first = read_json(project / "models/run.json")["model_sha256"]

    if "classes" in change:
        names = [("healthy", ("spots", "blight")[number % 2])[label] for number, label in enumerate(labels)]
        write_npz(project / "leaves.npz", images, names)
    set_params(project, **change)
    run(project, "ingest", "clean", "split", "balance")
    shutil.copytree(project, copy)
    run(project, "train", "evaluate", path=without_keras(tmp_path / "without"))
    assert read_json(project / "models/run.json")["model_sha256"] != first

    for name in ("train", "evaluate"):  # both start with an empty cache, so both use Keras
        monkeypatch.setenv("LEAF_STATE", str(tmp_path / f"state of {name}"))
        run(copy, name)
    assert outputs(project) == outputs(copy)
