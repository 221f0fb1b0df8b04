"""Jobs on this machine need no remote, share the DVC cache, and leave the workspace unchanged."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import Project, expected

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(new_project: Callable[[Path], Project], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Run a row of experiments.yaml with an additional setting and without any remote."""
    project = new_project(tmp_path_factory.mktemp("local"))
    project.git("remote", "remove", "origin")
    project.leaf("submit", "longer", "-S", "seed=9")
    project.leaf("fetch", "--wait", "--every", "0.2")
    return project


def test_row_with_a_setting_becomes_an_experiment(finished: Project) -> None:
    assert json.loads(finished.file("longer-seed-9", "metrics.json")) == expected(seed=9, epochs=4)


def test_workspace_is_unchanged(finished: Project) -> None:
    assert finished.git("status", "--porcelain") == ""
    assert not (finished.path / "metrics.json").exists()


def test_model_is_in_the_shared_cache(finished: Project) -> None:
    finished.git("checkout", "-q", finished.experiments()["longer-seed-9"], "--", "dvc.lock")
    made = next(line.split()[-1] for line in finished.file("longer-seed-9", "dvc.lock").splitlines() if "md5: " in line)
    assert (finished.path / ".dvc" / "cache" / "files" / "md5" / made[:2] / made[2:]).exists()


def test_clone_links_its_data_to_the_cache(finished: Project) -> None:
    cached = next(path for path in (finished.path / ".dvc/cache/files/md5").rglob("*") if path.is_file())
    command = ["cp", "--reflink=always", cached, finished.path.with_name("reflinked")]
    if subprocess.run(command, capture_output=True).returncode == 0:
        pytest.skip("this file system supports reflinks, which the link count does not show")
    assert "links to the images: 2" in finished.leaf("logs", "longer-seed-9")


def test_jobs_lists_the_final_state(finished: Project) -> None:
    assert finished.leaf("jobs").splitlines()[1].split()[1:] == ["local", "longer-seed-9", "done"]


def test_race_in_the_run_cache_is_retried(project: Project) -> None:
    project.git("remote", "remove", "origin")
    project.leaf("submit", "--name", "first", "-S", "seed=5")
    project.leaf("fetch", "--wait", "--every", "0.2")
    entries = [folder / ".half.tmp" for folder in (project.path / ".dvc/cache/runs").glob("*/*")]
    for entry in entries:
        entry.symlink_to("gone")  # reading the age of the entry fails, as if another job had renamed it
    project.leaf("submit", "--name", "second", "-S", "seed=5")
    jobs, deadline = project.path / ".dvc/tmp/leaf/target/jobs", time.monotonic() + 60
    while not any(b": trying again" in log.read_bytes() for log in jobs.glob("*/0/log")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for entry in entries:
        entry.unlink()
    project.leaf("fetch", "--wait", "--every", "0.2")
    assert project.file("second", "metrics.json") == project.file("first", "metrics.json")


def test_first_experiment_of_a_new_project_prints_no_warning(project: Project) -> None:
    said = project.leaf("run", "longer")
    assert "WARNING" not in said
    assert set(project.experiments()) == {"longer"}
