"""The true pipeline, cut to a minute, submitted to this machine."""

import json
import subprocess
from pathlib import Path

import pytest
from tiny import Project, run

ROOT = Path(__file__).parents[2]
SMALL = ["drawn.images=120", "drawn.size=32", "image_size=32", "epochs=1", "backbone=cnn_small", "smote_neighbors=2"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_pipeline_comes_back_with_its_metrics(tmp_path: Path) -> None:
    if subprocess.run(["git", "rev-parse", "--git-dir"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("not a git checkout")
    run("git", "clone", "-q", str(ROOT), str(tmp_path / "project"), cwd=tmp_path)
    project = Project(tmp_path / "project", tmp_path / "target")
    project.git("config", "user.name", "A. Grower")
    project.git("config", "user.email", "grower@example.org")
    settings = [part for setting in SMALL for part in ("-S", setting)]
    project.leaf("submit", "--on", "local", "--name", "small", *settings)
    try:
        project.leaf("fetch", "--wait", "--every", "1")
    except AssertionError:
        raise AssertionError(project.leaf("logs", "small")) from None
    scores = json.loads(project.file("small", "metrics/evaluate.json"))
    assert 0 <= scores["test"]["accuracy"] <= 1
