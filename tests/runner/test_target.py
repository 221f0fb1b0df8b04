"""Test states, logs and requests on the target."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from leaf.errors import LeafError
from leaf.runner.agent.task import lost_race
from leaf.runner.config import check_target
from leaf.runner.jobs import expected
from leaf.runner.plan import Planned
from leaf.runner.ssh import ConnectionLostError, Host


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Return the folder of a job with one experiment that started an hour ago."""
    folder = tmp_path / "jobs" / "x"
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "step").write_text("run")
    for path in (folder / "0" / "step", folder / "0"):
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    return folder


def state(job: Path) -> tuple[str, str]:
    (only,) = Host().call("states", folder=str(job.parents[1]), id="x", experiments=1)["states"]
    return only["state"], only["note"]


def squeue(job: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Turn the job into Slurm job 7, and replace `squeue` with a shell script."""
    (job / "slurm").write_text("7")
    program = job / "squeue"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{job}{os.pathsep}{os.environ['PATH']}")


def test_job_that_never_arrived_is_lost(tmp_path: Path) -> None:
    assert state(tmp_path / "jobs" / "x") == ("lost", "not on the target. Submit the experiment again.")


def test_experiment_without_a_process_is_lost_with_its_last_step(job: Path) -> None:
    assert state(job) == ("lost", "ended unexpectedly in step 'run'. Submit the experiment again.")


def test_state_is_read_from_the_exit_file(job: Path) -> None:
    (job / "0" / "exit").write_text(json.dumps({"state": "failed", "reason": "dvc push: exit status 1"}))
    assert state(job) == ("failed", "dvc push: exit status 1")


def test_killed_experiment_with_a_cancel_request_is_canceled(job: Path) -> None:
    (job / "0" / "cancelled").touch()
    assert state(job)[0] == "cancelled"


def test_slurm_states_are_read_by_array_index(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue(job, monkeypatch, "echo 0 PENDING; echo 1 RUNNING")
    assert state(job) == ("queued", "run")


def test_requeued_experiment_outside_the_queue_is_not_lost(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue(job, monkeypatch, "exit 0")
    (job / "0" / "step").unlink()
    (job / "0" / "step").write_text("requeued")
    assert state(job) == ("queued", "requeued")


def test_job_unknown_to_slurm_has_the_state_in_its_files(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue(job, monkeypatch, "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert state(job)[0] == "lost"


def test_malformed_squeue_lines_are_ignored(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue(job, monkeypatch, "echo; echo warning: odd; echo N/A RUNNING; echo 0 RUNNING")
    assert state(job) == ("running", "run")


def test_unexpected_error_on_the_target_is_reported(job: Path) -> None:
    with pytest.raises(LeafError, match="this machine: KeyError"):
        Host().call("states", folder=str(job.parents[1]))


def test_unreachable_controller_is_a_lost_connection(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squeue(job, monkeypatch, "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(ConnectionLostError, match="Unable to contact slurm controller"):
        state(job)


def test_log_is_read_in_parts(job: Path) -> None:
    (job / "0" / "log").write_text("first second")
    request = {"folder": str(job.parents[1]), "id": "x", "index": 0}
    assert Host().call("log", **request, offset=6) == {"text": "second", "next": 12}


def test_request_with_quotes_arrives_unchanged(tmp_path: Path) -> None:
    folder = str(tmp_path / "a\"b'c\\d\n'''é😀$(touch pwned)")
    Host().call("facts", folder=folder, path=[], environment={}, programs=[], commands={})
    assert Path(folder).is_dir()


def test_missing_python_raises_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(LeafError, match=r"this machine: .*Python 3\.8"):
        Host(python="false").call("states", folder="/", id="x", experiments=1)


TOOK = {"convnext_atto 96 0 32 float32 adam": {"seconds": 90, "images": 400, "memory": 3 * 2**30}}


def test_submit_prints_memory_time_and_cost_of_the_last_training_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state" / "known").mkdir(parents=True)
    (tmp_path / "state" / "known" / "epochs.json").write_text(json.dumps(TOOK))
    (tmp_path / "params.yaml").write_text("epochs: 10\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Host, "__init__", lambda self, *_: setattr(self, "command", [sys.executable, "-"]))
    monkeypatch.setattr(Host, "__str__", lambda _: "box")
    target = check_target("box", {"engine": "ssh", "host": "box", "folder": str(tmp_path), "hourly_cost": 4.0})
    planned = [Planned("a", ()), Planned("b", ("epochs=4",)), Planned("c", ("backbone=convnext_large",))]
    assert list(expected("box", target, planned)) == [
        "a on box: convnext_atto at 96 pixels: the last run with these settings used 3.0 GiB and 90 s per epoch of 400 "
        "images; 10 epochs: at most 15 min, 1.00 dollars",
        "b on box: convnext_atto at 96 pixels: the last run with these settings used 3.0 GiB and 90 s per epoch of 400 "
        "images; 4 epochs: at most 6 min, 0.40 dollars",
        "c on box: convnext_large at 96 pixels: memory, time and cost are unknown until the first run with "
        "these settings on box",
    ]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "\x00", '{"state": "odd", "reason": ""}', '{"state": "done", "reason": 3}', "[" * 99999],
)
def test_experiment_with_a_damaged_exit_file_is_failed(job: Path, text: str) -> None:
    (job / "0" / "exit").write_text(text)
    assert state(job)[0] == "failed"
    assert "exit: damaged" in state(job)[1]


def test_clock_ahead_on_the_target_does_not_keep_a_lost_job_queued(job: Path) -> None:
    (job / "0" / "step").unlink()
    os.utime(job / "0", (time.time() + 7200,) * 2)
    assert state(job)[0] == "lost"


def test_lost_experiment_leaves_no_clone(job: Path) -> None:
    (job / "0" / "clone").mkdir()
    assert state(job)[0] == "lost"
    assert not (job / "0" / "clone").exists()


@pytest.mark.parametrize(
    "took", [7, {}, [1], {"seconds": "1", "images": 1, "memory": 1}, {**next(iter(TOOK.values())), "images": 0}, None]
)
def test_damaged_time_in_the_cache_counts_as_unknown(
    took: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "known").mkdir()
    (tmp_path / "known" / "epochs.json").write_text(json.dumps(dict.fromkeys(TOOK, took)))
    (tmp_path / "params.yaml").write_text("epochs: 10\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LEAF_STATE", str(tmp_path))
    (line,) = expected("local", check_target("local", {"engine": "local"}), [Planned("a", ())])
    assert "unknown" in line


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_damaged_cache_on_the_target_counts_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "state" / "known").mkdir(parents=True)
    (tmp_path / "state" / "known" / "epochs.json").write_text(text)
    assert Host().call("trainings", folder=str(tmp_path)) == {"trainings": {}}


def test_race_check_without_a_log_is_false(tmp_path: Path) -> None:
    assert not lost_race(tmp_path / "log")
