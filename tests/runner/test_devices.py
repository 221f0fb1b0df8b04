"""The GPUs that an experiment holds: several at once where its target says so, and never a part of them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from leaf.runner.agent.task import Task, TaskError


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[int], int], Task]:
    """Make an experiment of this machine that is to hold so many of these GPUs."""
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


def refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the experiment has to wait; it is stopped at its first pause."""
    monkeypatch.setattr("time.sleep", lambda _: setattr(task, "stopped", True))
    with pytest.raises(TaskError, match="stopped"):
        task.hold_device()
    return "CUDA_VISIBLE_DEVICES" not in task.environment


def test_an_experiment_holds_as_many_gpus_as_its_target_says(
    experiment: Callable[[list[int], int], Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = experiment([0, 1, 2, 3], 2), experiment([0, 1, 2, 3], 2)
    first.hold_device()
    second.hold_device()
    assert [task.environment["CUDA_VISIBLE_DEVICES"] for task in (first, second)] == ["0,1", "2,3"]
    assert refused(experiment([0, 1, 2, 3], 1), monkeypatch)


def test_who_cannot_have_all_leaves_the_rest_to_others(
    experiment: Callable[[list[int], int], Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = experiment([0, 1, 2], 2)
    first.hold_device()
    assert refused(experiment([0, 1, 2], 2), monkeypatch)
    third = experiment([0, 1, 2], 1)
    third.hold_device()
    assert third.environment["CUDA_VISIBLE_DEVICES"] == "2"
