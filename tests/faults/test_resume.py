"""A killed training resumes and ends with the bits of an uninterrupted one."""

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
SCRIPT = Path(__file__).with_name("killed_trainings.py")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the code: a state holds for the code that wrote it, and someone may be editing."""
    made = tmp_path_factory.mktemp("resume")
    for name in ("leaf", "stages"):
        shutil.copytree(ROOT / name, made / "code" / name, ignore=shutil.ignore_patterns("__pycache__"))
    return made


def environment(folder: Path, **variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder / "code"), "TF_CPP_MIN_LOG_LEVEL": "2", **variables}


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """What killed_trainings.py wrote down; the kills differ from run to run and can be repeated by their seed."""
    seed = os.environ.get("LEAF_KILL_SEED") or str(int.from_bytes(os.urandom(3)))
    print("LEAF_KILL_SEED", seed)
    command = [sys.executable, str(SCRIPT), str(folder), seed, str(ROOT / "dvc.yaml")]
    done = subprocess.run(command, env=environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "found.json").read_text())


def test_resume_after_ten_sigkills_is_bit_identical(found: dict[str, Any]) -> None:
    assert found["statuses"] == [-signal.SIGKILL] * 10
    assert found["last_status"] == 0, found["log"]
    assert found["killed"] == found["whole"], f"LEAF_KILL_SEED={found['seed']}"
    assert {"models/model.keras", "models/history.csv", "models/run.json"} < set(found["whole"])


def test_resumed_training_prints_its_epoch(found: dict[str, Any]) -> None:
    epochs = [int(epoch) for epoch in re.findall(r"resuming after epoch (\d+) of 22", found["log"])]
    assert len(epochs) == 10  # all of the twelve but the two before the first state
    assert epochs == sorted(epochs)


def test_sigterm_exits_quickly_with_a_checkpoint_and_a_requeue_marker(found: dict[str, Any]) -> None:
    assert found["stopped_status"] == 143
    assert found["stopped_seconds"] < 20  # far less on a machine that is not busy
    assert {".npz", ".requeue"} <= set(found["stopped_state"])
    said = re.search(r"stopped by SIGTERM, requeue: epoch (\d+) is kept, the same command", found["log"])
    assert said
    assert f"resuming after epoch {said[1]} of 22" in found["log"][said.end() :]


def test_checkpoint_and_marker_are_removed_at_the_end(found: dict[str, Any]) -> None:
    assert found["last_state"] == []


def test_resume_after_sigkill_of_the_command_is_bit_identical(found: dict[str, Any], folder: Path) -> None:
    project, state = folder / "project", folder / "real"
    command = [sys.executable, "-m", "stages.train"]
    first = subprocess.Popen(command, cwd=project, env=environment(folder, LEAF_STATE=str(state)))
    while first.poll() is None and not list(state.glob("training/[!.]*.npz")):  # a dot: half-written
        time.sleep(0.01)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    again = subprocess.run(
        command, cwd=project, env=environment(folder, LEAF_STATE=str(state)), capture_output=True, text=True, check=True
    )
    assert "training: resuming after epoch" in again.stderr
    assert (project / "models/model.keras").read_bytes().hex() == found["whole"]["models/model.keras"]
    assert (project / "models/history.csv").read_bytes().hex() == found["whole"]["models/history.csv"]
