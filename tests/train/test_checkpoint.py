"""Test checkpoint files: damage, locks, cleanup, location and keys."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import filelock
import numpy as np
import pytest

from leaf.errors import LeafError
from leaf.store import cache_folder
from leaf.train.checkpoint import Checkpoint, CheckpointFile, locked_checkpoint, training_key
from leaf.train.reproducibility import driver, versions

CHECKPOINT = Checkpoint([{"epoch": 1}], {"model": [np.arange(5.0), np.zeros((2, 2), np.uint32)], "best": []})


@pytest.fixture
def checkpoint_file(tmp_path: Path) -> CheckpointFile:
    return CheckpointFile(tmp_path / "key.npz")


def test_a_checkpoint_round_trips(checkpoint_file: CheckpointFile) -> None:
    checkpoint_file.save(CHECKPOINT)
    again = checkpoint_file.load()
    assert again
    assert again.history == CHECKPOINT.history
    assert (again.arrays["model"][0] == CHECKPOINT.arrays["model"][0]).all()
    assert again.arrays["model"][1].dtype == np.uint32
    assert again.arrays["best"] == []


def test_load_without_a_checkpoint_returns_none(checkpoint_file: CheckpointFile) -> None:
    assert checkpoint_file.load() is None


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_ignored_with_a_warning(checkpoint_file: CheckpointFile, share: float) -> None:
    checkpoint_file.save(CHECKPOINT)
    whole = checkpoint_file.path.read_bytes()
    checkpoint_file.path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.warns(UserWarning, match="training starts over"):
        assert checkpoint_file.load() is None


def test_a_changed_weight_is_detected(checkpoint_file: CheckpointFile) -> None:
    checkpoint_file.save(CHECKPOINT)
    content = bytearray(checkpoint_file.path.read_bytes())
    at = content.index(np.arange(5.0).tobytes())
    content[at + 9] ^= 1
    checkpoint_file.path.write_bytes(bytes(content))
    with pytest.warns(UserWarning, match="training starts over"):
        assert checkpoint_file.load() is None


def test_the_checkpoint_of_another_training_run_is_ignored_with_a_warning(checkpoint_file: CheckpointFile) -> None:
    checkpoint_file.save(CHECKPOINT)
    foreign = CheckpointFile(checkpoint_file.path.with_stem("other"))
    checkpoint_file.path.rename(foreign.path)
    with pytest.warns(UserWarning, match="another training"):
        assert foreign.load() is None


def test_a_pickle_in_a_checkpoint_is_not_run(checkpoint_file: CheckpointFile) -> None:
    np.savez(checkpoint_file.path, header=np.array([print], dtype=object))
    with pytest.warns(UserWarning, match="training starts over"):
        assert checkpoint_file.load() is None


def test_the_checkpoint_is_deleted_on_success_and_kept_on_error(tmp_path: Path) -> None:
    def interrupted() -> None:
        with locked_checkpoint("k", tmp_path) as checkpoint_file:
            checkpoint_file.save(CHECKPOINT)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "k.npz").exists()
    with locked_checkpoint("k", tmp_path) as checkpoint_file:
        assert checkpoint_file.load()
    assert not (tmp_path / "k.npz").exists()


def test_a_second_process_of_the_same_training_run_waits(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    entered = threading.Event()

    def second() -> None:
        with locked_checkpoint("k", tmp_path):
            entered.set()

    with locked_checkpoint("k", tmp_path):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.2)
        assert not entered.is_set()
    other.join(5)
    assert entered.is_set()
    assert f"waiting for process {os.getpid()}" in capsys.readouterr().err


def test_no_lock_file_remains_after_training(tmp_path: Path) -> None:
    with locked_checkpoint("k", tmp_path) as checkpoint_file:
        checkpoint_file.save(CHECKPOINT)
        assert (tmp_path / "k.lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_only_one_process_holds_the_lock_even_if_its_file_is_removed(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(30):
            with locked_checkpoint("k", tmp_path):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 120
    assert max(most) == 1


def test_checkpoint_of_any_age_is_resumed(tmp_path: Path) -> None:
    old = CheckpointFile(tmp_path / "old.npz")
    old.save(CHECKPOINT)
    os.utime(old.path, (0, 0))
    with locked_checkpoint("old", tmp_path) as wanted:
        assert wanted.load()


def test_the_least_recently_used_checkpoint_is_removed_at_the_size_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for number, name in enumerate(["running", "oldest", "newer", "wanted"]):
        file = CheckpointFile(tmp_path / f"{name}.npz")
        file.save(CHECKPOINT)
        os.utime(file.path, (number, number))
    monkeypatch.setattr("leaf.train.checkpoint.MAX_BYTES", 2.5 * file.path.stat().st_size)
    with filelock.FileLock(tmp_path / "running.lock"), locked_checkpoint("wanted", tmp_path):
        assert {path.stem for path in tmp_path.glob("*.npz")} == {"running", "newer", "wanted"}
    assert "oldest.npz" in capsys.readouterr().err


def test_any_flipped_bit_is_detected(checkpoint_file: CheckpointFile) -> None:
    checkpoint_file.save(CHECKPOINT)
    whole = checkpoint_file.path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        checkpoint_file.path.write_bytes(bytes(changed))
        with pytest.warns(UserWarning, match="training starts over"):
            assert checkpoint_file.load() is None
        assert not checkpoint_file.path.exists()
        assert checkpoint_file.path.with_suffix(".damaged").exists()


def test_the_checkpoint_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder("training") == tmp_path / "x/leaf/training"
    monkeypatch.setenv("LEAF_STATE", str(tmp_path / "s"))
    assert cache_folder("training") == tmp_path / "s/training"


def test_an_unusable_state_folder_is_rejected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LEAF_STATE", str(tmp_path / "file"))
    with pytest.raises(LeafError, match=r"LEAF_STATE: .*file.*writable"):
        cache_folder("training")


@pytest.mark.parametrize("home", ["unknown", "not a folder"])
def test_without_a_home_the_checkpoint_is_in_the_project(
    home: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEAF_STATE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home == "unknown":  # as for `docker run --user` with an ID that is unknown in the image
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    else:
        (tmp_path / "home").touch()
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("training") == Path(".dvc/tmp/leaf/training")
    assert Path(".dvc/tmp/leaf/training").is_dir()
    assert "no writable home" in capsys.readouterr().err


def test_versions_name_the_device() -> None:
    assert versions()["device"] == "cpu"


def test_the_key_depends_on_parameters_weights_and_code(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "a.py").write_text("x = 1")
    weights = [np.zeros(3, np.float32)]
    keys = {training_key({"epochs": 3}, weights, [code]), training_key({"epochs": 3}, weights, [code])}
    assert len(keys) == 1
    keys |= {training_key({"epochs": 4}, weights, [code]), training_key({"epochs": 3}, [weights[0] + 1], [code])}
    (code / "a.py").write_text("x = 2")
    keys.add(training_key({"epochs": 3}, weights, [code]))
    assert len(keys) == 4


STEP = """
import os, sys, keras, numpy as np
from leaf.train.reproducibility import fix_seeds
for deterministic in (False, True):
    fix_seeds(0, deterministic)
    if "tensorflow" in sys.argv:
        from tensorflow.python.framework.config import is_op_determinism_enabled
        print(is_op_determinism_enabled())
    else:
        print("--xla_gpu_deterministic_ops=true" in os.environ["XLA_FLAGS"])
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
model.compile("sgd", "mse")
model.train_on_batch(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_only_deterministic_training_sets_the_backends_flag(backend: str) -> None:
    """XLA exits at the first step if it does not recognize a flag."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, "-c", STEP, backend]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout) == (0, "False\nTrue\n"), done.stderr[-2000:]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\n", "535.129.03"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n", "570.86.15"),
        ("", ""),
    ],
)
def test_the_driver_version_is_read_from_the_kernel_module(tmp_path: Path, text: str, version: str) -> None:
    (tmp_path / "version").write_text(text)
    assert driver(tmp_path / "version") == version
    assert driver(tmp_path / "missing") == ""
