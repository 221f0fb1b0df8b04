"""Training that was killed resumes, and its outputs are bit-identical to those of an undisturbed run."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("killed_runs.py")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of the code: an edit during the test would invalidate the checkpoints."""
    folder = tmp_path_factory.mktemp("resume")
    for name in ("leaf", "stages"):
        shutil.copytree(ROOT / name, folder / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def environment(folder: Path, **variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder / "code"), "TF_CPP_MIN_LOG_LEVEL": "2", **variables}


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Any]:
    """Return the results of killed_runs.py, which kills at random times. To repeat a run, set LEAF_KILL_SEED."""
    seed = os.environ.get("LEAF_KILL_SEED") or str(int.from_bytes(os.urandom(3)))
    print("LEAF_KILL_SEED", seed)
    command = [sys.executable, str(SCRIPT), str(folder), seed]
    done = subprocess.run(command, env=environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "results.json").read_text())


def test_resume_after_ten_sigkills_is_bit_identical(results: dict[str, Any]) -> None:
    assert results["statuses"] == [-signal.SIGKILL] * 10
    assert results["last_status"] == 0, results["log"]
    assert results["killed"] == results["undisturbed"], f"LEAF_KILL_SEED={results['seed']}"
    assert {"models/model.keras", "models/history.csv", "models/run.json"} < set(results["undisturbed"])


def test_resumed_training_prints_its_epoch(results: dict[str, Any]) -> None:
    epochs = [int(epoch) for epoch in re.findall(r"resuming after epoch (\d+) of 22", results["log"])]
    assert len(epochs) == 10  # all twelve training runs except the two without a checkpoint
    assert epochs == sorted(epochs)


def test_sigterm_exits_quickly_with_a_checkpoint(results: dict[str, Any]) -> None:
    assert results["stopped_status"] == 143
    assert results["stopped_seconds"] < 20  # much less on an idle machine
    assert ".npz" in results["stopped_state"]
    message = re.search(r"stopped by SIGTERM; .*after epoch (\d+)", results["log"])
    assert message
    assert f"resuming after epoch {message[1]} of 22" in results["log"][message.end() :]


def test_the_checkpoint_is_removed_at_the_end(results: dict[str, Any]) -> None:
    assert results["last_state"] == []


def test_resume_after_sigkill_of_the_command_is_bit_identical(results: dict[str, Any], folder: Path) -> None:
    project, state = folder / "project", folder / "real"
    command = [sys.executable, "-m", "stages.train"]
    first = subprocess.Popen(command, cwd=project, env=environment(folder, LEAF_STATE=str(state)))
    while first.poll() is None and not list(state.glob("training/[!.]*.npz")):  # partial files start with a dot
        time.sleep(0.01)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    again = subprocess.run(
        command, cwd=project, env=environment(folder, LEAF_STATE=str(state)), capture_output=True, text=True, check=True
    )
    assert "training: resuming after epoch" in again.stderr
    assert (project / "models/model.keras").read_bytes().hex() == results["undisturbed"]["models/model.keras"]
    assert (project / "models/history.csv").read_bytes().hex() == results["undisturbed"]["models/history.csv"]
