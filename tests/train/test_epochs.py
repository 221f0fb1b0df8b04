"""The checkpoint is written during the next epoch and is complete on every exit."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leaf.params import Params
from leaf.train.checkpoint import Checkpoint, CheckpointFile
from leaf.train.trainer import run_training

EPOCHS, STEPS = 5, 2


class Counting:
    """A stub of `Training` whose single weight counts the updates."""

    steps = STEPS
    params = Params(epochs=EPOCHS)

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.weight = np.zeros(1)

    @property
    def done(self) -> bool:
        return len(self.history) >= EPOCHS

    def train_epoch(self, bar: Any, after_step: Any) -> dict[str, Any]:
        for _ in range(STEPS):
            self.weight = self.weight + 1
            after_step()
        self.history.append({"epoch": len(self.history) + 1})
        return self.history[-1]

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(list(self.history), {"weight": [self.weight]})

    def restore(self, checkpoint: Checkpoint) -> None:
        self.history, self.weight = checkpoint.history, checkpoint.arrays["weight"][0]

    def result(self) -> Any:
        return self.weight[0]


class Slow(CheckpointFile):
    """A checkpoint file on a slow disk: saving it takes longer than an epoch."""

    def save(self, checkpoint: Checkpoint) -> None:
        time.sleep(0.2)
        super().save(checkpoint)


class Full(CheckpointFile):
    """A checkpoint file on a full disk."""

    def save(self, checkpoint: Checkpoint) -> None:
        raise OSError(28, "No space left on device")


def test_an_epoch_does_not_wait_for_its_checkpoint(tmp_path: Path) -> None:
    checkpoint_file, existed = Slow(tmp_path / "k.npz"), []
    run_training(Counting(), checkpoint_file, lambda row: existed.append(checkpoint_file.path.exists()), True)
    assert existed == [False, True, True, True, True]


def test_an_error_keeps_the_last_finished_epoch(tmp_path: Path) -> None:
    def fail(row: dict[str, Any]) -> None:
        if row["epoch"] == 3:
            raise RuntimeError

    checkpoint_file = Slow(tmp_path / "k.npz")
    with pytest.raises(RuntimeError):
        run_training(Counting(), checkpoint_file, fail, True)
    checkpoint = checkpoint_file.load()
    assert checkpoint is not None
    assert (len(checkpoint.history), checkpoint.arrays["weight"][0][0]) == (3, 3 * STEPS)
    assert run_training(Counting(), checkpoint_file, None, True) == EPOCHS * STEPS


def test_sigterm_waits_until_the_checkpoint_is_written(tmp_path: Path) -> None:
    def terminate(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    checkpoint_file = Slow(tmp_path / "k.npz")
    with pytest.raises(SystemExit):
        run_training(Counting(), checkpoint_file, terminate, True)
    checkpoint = checkpoint_file.load()
    assert checkpoint is not None
    assert len(checkpoint.history) == 2


def test_a_full_disk_stops_training(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        run_training(Counting(), Full(tmp_path / "k.npz"), None, True)
