"""Test the tasks and commands for SkyPilot, without renting a machine."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from tiny import Project

from leaf.runner.config import SkyPilot, check_target
from leaf.runner.skypilot import launch_command, task_yaml

HOSTILE = "$(touch pwned); ' \""


def target(**keys: object) -> SkyPilot:
    made = check_target("cloud", {"engine": "skypilot", **keys})
    assert isinstance(made, SkyPilot)
    return made


def test_machine_stops_when_idle_and_has_a_cost_limit() -> None:
    resources = task_yaml(target(idle_minutes=7, hourly_cost=1.5), "x", 1, Path("x"))["resources"]
    assert resources["autostop"] == {"idle_minutes": 7, "down": True}
    assert resources["max_hourly_cost"] == 1.5


def test_spot_machine_is_a_managed_job() -> None:
    assert launch_command(target(spot=True), "leaf-x", Path("t.yaml"))[:2] == ["jobs", "launch"]
    assert launch_command(target(spot=False), "leaf-x", Path("t.yaml"))[0] == "launch"


def test_checkpoints_outlive_the_machine_in_a_bucket() -> None:
    mounts = task_yaml(target(state_bucket="s3://leaf-states"), "x", 1, Path("x"))["file_mounts"]
    assert mounts["~/leaf/state"] == {"source": "s3://leaf-states", "mode": "MOUNT"}


@pytest.fixture
def sky(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a stub `sky` that records its arguments, and make `cloud` the default target."""
    folder = project.path.parent / "bin"
    folder.mkdir()
    program = folder / "sky"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {folder}/calls\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    project.commit(**{"runner.yaml": json.dumps({"targets": {"cloud": {"engine": "skypilot", "cloud": "aws"}}})})
    return folder / "calls"


@pytest.mark.slow
def test_script_of_the_task_contains_no_user_value(sky: Path, project: Project) -> None:
    project.leaf("submit", "--name", "odd", "-S", f"ignore={json.dumps([HOSTILE])}")
    calls = sky.read_text().split()
    assert calls[:4] == ["jobs", "launch", "-y", "-d"]
    task = yaml.safe_load(Path(calls[-1]).read_text())
    (mounted,) = [Path(source) for source in task["file_mounts"].values()]
    assert "touch" not in task["run"]
    assert json.loads((mounted / "job.json").read_text())["experiments"][0]["name"] == "odd"
    assert (mounted / "task.py").exists()
    assert mounted.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_experiment_at_the_origin_is_done_and_cancel_stops_the_machine(sky: Path, project: Project) -> None:
    project.leaf("submit", "-S", "seed=1,2")
    revision = project.git("rev-parse", "HEAD")
    project.git("push", "-q", "origin", f"HEAD:refs/exps/{revision[:2]}/{revision[2:]}/seed-1")
    states = [line.split()[2:4] for line in project.leaf("jobs").splitlines()[1:]]
    assert states == [["seed-1", "done"], ["seed-2", "unknown"]]
    job = project.leaf("jobs").splitlines()[1].split()[0]
    project.leaf("cancel", job)
    assert sky.read_text().split()[-5:] == ["jobs", "cancel", "-y", "-n", f"leaf-{job}"]


@pytest.mark.slow
def test_skypilot_accepts_the_task(tmp_path: Path) -> None:
    python = os.environ.get("SKYPILOT_PYTHON")
    if python is None:
        pytest.skip("SKYPILOT_PYTHON: not set to a Python with SkyPilot, which requires a separate environment")
    (tmp_path / "job").mkdir()
    tasks = []
    for name, keys in {
        "spot": {"cloud": "aws", "region": "eu-central-1"},
        "any": {"spot": False, "hourly_cost": 2.0},
    }.items():
        tasks.append(tmp_path / f"{name}.yaml")
        tasks[-1].write_text(yaml.safe_dump(task_yaml(target(**keys), "20260101-000000-abcd", 3, tmp_path / "job")))
    program = "import sys, sky\nfor name in sys.argv[1:]: print(sky.Task.from_yaml(name).resources)"
    answer = subprocess.run([python, "-c", program, *map(str, tasks)], capture_output=True, text=True, timeout=240)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("L4") == 2
