"""A state is written while the next epoch runs, and whole however the training ends."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leaf.training.state import Keeper, State
from leaf.training.trainer import run_epochs

EPOCHS, STEPS = 5, 2


class Counting:
    """A training whose only weight counts its updates."""

    steps = STEPS

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.weight = np.zeros(1)

    @property
    def over(self) -> bool:
        return len(self.history) >= EPOCHS

    def one_epoch(self, bar: Any, after_step: Any) -> dict[str, Any]:
        for _ in range(STEPS):
            self.weight = self.weight + 1
            after_step()
        self.history.append({"epoch": len(self.history) + 1})
        return self.history[-1]

    def state(self) -> State:
        return State({"history": list(self.history)}, {"weight": [self.weight]})

    def restore(self, state: State) -> None:
        self.history, self.weight = state.notes["history"], state.arrays["weight"][0]

    def result(self) -> Any:
        return self.weight[0]


class Slow(Keeper):
    """A disk that takes longer than an epoch."""

    def save(self, state: State) -> None:
        time.sleep(0.2)
        super().save(state)


class Full(Keeper):
    """A disk without room."""

    def save(self, state: State) -> None:
        raise OSError(28, "No space left on device")


def test_an_epoch_does_not_wait_for_its_state(tmp_path: Path) -> None:
    keeper, there = Slow(tmp_path / "k.npz"), []
    run_epochs(Counting(), EPOCHS, keeper, lambda row: there.append(keeper.path.exists()), True)
    assert there == [False, True, True, True, True]


def test_what_is_kept_when_a_training_breaks_is_its_last_finished_epoch(tmp_path: Path) -> None:
    def breaking(row: dict[str, Any]) -> None:
        if row["epoch"] == 3:
            raise RuntimeError

    keeper = Slow(tmp_path / "k.npz")
    with pytest.raises(RuntimeError):
        run_epochs(Counting(), EPOCHS, keeper, breaking, True)
    state = keeper.load()
    assert state is not None
    assert (len(state.notes["history"]), state.arrays["weight"][0][0]) == (3, 3 * STEPS)
    assert run_epochs(Counting(), EPOCHS, keeper, None, True) == EPOCHS * STEPS


def test_sigterm_waits_until_the_state_is_written(tmp_path: Path) -> None:
    def ending(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    keeper = Slow(tmp_path / "k.npz")
    with pytest.raises(SystemExit):
        run_epochs(Counting(), EPOCHS, keeper, ending, True)
    assert keeper.requeue.exists()
    state = keeper.load()
    assert state is not None
    assert len(state.notes["history"]) == 2


def test_a_full_disk_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        run_epochs(Counting(), EPOCHS, Full(tmp_path / "k.npz"), None, True)
