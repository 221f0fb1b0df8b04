"""The state on disk."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from leaf.training.state import KEPT_DAYS, Keeper, State, folder, keeping, run_key, waiting_runs

STATE = State({"epoch": 3}, {"model": [np.arange(5.0), np.zeros((2, 2), np.uint32)], "best": []})


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    return Keeper(tmp_path / "key.npz")


def test_a_state_comes_back_as_it_was_saved(keeper: Keeper) -> None:
    keeper.save(STATE)
    again = keeper.load()
    assert again
    assert again.notes == STATE.notes
    assert (again.arrays["model"][0] == STATE.arrays["model"][0]).all()
    assert again.arrays["model"][1].dtype == np.uint32
    assert again.arrays["best"] == []


def test_without_a_state_there_is_nothing_to_go_on_from(keeper: Keeper) -> None:
    assert keeper.load() is None


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_state_is_ignored_with_a_warning(keeper: Keeper, share: float) -> None:
    keeper.save(STATE)
    whole = keeper.path.read_bytes()
    keeper.path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.warns(UserWarning, match="training starts anew"):
        assert keeper.load() is None


def test_a_changed_byte_is_noticed(keeper: Keeper) -> None:
    keeper.save(STATE)
    content = bytearray(keeper.path.read_bytes())
    at = content.index(np.arange(5.0).tobytes())
    content[at + 9] ^= 1
    keeper.path.write_bytes(bytes(content))
    with pytest.warns(UserWarning, match="training starts anew"):
        assert keeper.load() is None


def test_the_state_of_another_run_is_ignored_with_a_warning(keeper: Keeper) -> None:
    keeper.save(STATE)
    foreign = Keeper(keeper.path.with_stem("other"))
    keeper.path.rename(foreign.path)
    with pytest.warns(UserWarning, match="another run"):
        assert foreign.load() is None


def test_a_pickle_in_a_state_is_not_run(keeper: Keeper) -> None:
    np.savez(keeper.path, notes=np.array([print], dtype=object))
    with pytest.warns(UserWarning, match="training starts anew"):
        assert keeper.load() is None


def test_the_state_goes_when_the_run_ends_well_and_stays_when_not(tmp_path: Path) -> None:
    def interrupted() -> None:
        with keeping("k", tmp_path) as keeper:
            keeper.save(STATE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "k.npz").exists()
    with keeping("k", tmp_path) as keeper:
        assert keeper.load()
    assert not (tmp_path / "k.npz").exists()


def test_a_second_training_of_the_same_run_says_so_and_waits(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    entered = threading.Event()

    def second() -> None:
        with keeping("k", tmp_path):
            entered.set()

    with keeping("k", tmp_path):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.2)
        assert not entered.is_set()
    other.join(5)
    assert entered.is_set()
    assert f"process {os.getpid()} is at work on this very run" in capsys.readouterr().err


def test_a_marker_names_the_run_to_requeue_until_it_goes_on(keeper: Keeper) -> None:
    keeper.mark_requeue(3)
    assert waiting_runs(keeper.path.parent) == [keeper.requeue]
    keeper.load()
    assert waiting_runs(keeper.path.parent) == []


def test_states_that_nobody_came_back_to_are_removed(tmp_path: Path) -> None:
    old = Keeper(tmp_path / "old.npz")
    old.save(STATE)
    past = time.time() - (KEPT_DAYS + 1) * 86400
    os.utime(old.path, (past, past))
    with keeping("new", tmp_path):
        assert not old.path.exists()


def test_the_folder_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert folder() == Path("/x/leaf/training")
    monkeypatch.setenv("LEAF_STATE", "/s")
    assert folder() == Path("/s/training")


def test_the_key_moves_with_parameters_weights_and_code(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("x = 1")
    weights = [np.zeros(3, np.float32)]
    keys = {run_key({"epochs": 3}, weights, [code]), run_key({"epochs": 3}, weights, [code])}
    assert len(keys) == 1
    keys |= {run_key({"epochs": 4}, weights, [code]), run_key({"epochs": 3}, [weights[0] + 1], [code])}
    (code / "a.py").write_text("x = 2")
    keys.add(run_key({"epochs": 3}, weights, [code]))
    assert len(keys) == 4
