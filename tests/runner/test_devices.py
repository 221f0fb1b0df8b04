"""An experiment locks all its GPUs or none, and keeps the locks until its last child process ends."""

import fcntl
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from leaf.runner.agent.task import Task, TaskError


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[int], int], Task]:
    """Return a function that creates an experiment that needs `each` GPUs out of the list `gpus`."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def make(gpus: list[int], each: int) -> Task:
        folder = tmp_path / "jobs" / "x"
        (folder / "0").mkdir(parents=True, exist_ok=True)
        devices = [f"gpu-{number}" for number in gpus]
        job = {
            "devices": devices,
            "devices_each": each,
            "experiments": [{"name": "a", "set": []}],
            "revision": "0" * 40,
        }
        job |= {"author": {"name": "A", "email": "a@example.org"}, "state": True, "path": [], "environment": {}}
        (folder / "job.json").write_text(json.dumps(job))
        return Task(folder, 0)

    return make


def waits(task: Task, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return whether the experiment waits for a GPU; stop it when it does."""
    monkeypatch.setattr("time.sleep", lambda _: setattr(task, "stopped", True))
    with pytest.raises(TaskError, match="stopped"):
        task.hold_device()
    return "CUDA_VISIBLE_DEVICES" not in task.environment


def test_experiment_locks_gpus_per_job(
    experiment: Callable[[list[int], int], Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = experiment([0, 1, 2, 3], 2), experiment([0, 1, 2, 3], 2)
    first.hold_device()
    second.hold_device()
    assert [task.environment["CUDA_VISIBLE_DEVICES"] for task in (first, second)] == ["0,1", "2,3"]
    assert waits(experiment([0, 1, 2, 3], 1), monkeypatch)


def test_waiting_experiment_locks_no_gpu(
    experiment: Callable[[list[int], int], Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = experiment([0, 1, 2], 2)
    first.hold_device()
    assert waits(experiment([0, 1, 2], 2), monkeypatch)
    third = experiment([0, 1, 2], 1)
    third.hold_device()
    assert third.environment["CUDA_VISIBLE_DEVICES"] == "2"


def test_gpu_stays_locked_while_a_child_of_a_killed_task_runs(
    experiment: Callable[[list[int], int], Task], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    task = experiment([0], 1)
    killed = tmp_path / "jobs" / "killed" / "0"
    killed.mkdir(parents=True)
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "gpu-0").write_text(str(killed))
    with (killed / "pid").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        child = subprocess.Popen(["sleep", "60"], stdin=file)
    try:
        assert waits(task, monkeypatch)
    finally:
        child.kill()
        child.wait()
    task = experiment([0], 1)
    task.hold_device()
    assert task.environment["CUDA_VISIBLE_DEVICES"] == "0"


def test_experiment_finished_by_an_identical_job_while_waiting_does_not_run(
    experiment: Callable[[list[int], int], Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = experiment([0], 1)
    answers = iter([False, True])
    monkeypatch.setattr(task, "at_origin", lambda: next(answers))
    monkeypatch.setattr(task, "make", lambda: pytest.fail("it ran"))
    task.run()
