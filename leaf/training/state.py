"""The state of a training on disk, so that the same command goes on after a kill and ends with the same bits.

It lies outside the project: DVC deletes a stage's outputs before it runs it. Each finished epoch replaces the file
whole; a lock keeps two trainings of one run apart.
"""

import hashlib
import json
import os
import platform
import signal
import sys
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import filelock
import keras
import numpy as np

from leaf import store

KEPT_DAYS = 30  # a state that nobody came back to for so long is removed


@dataclass
class State:
    """What a training needs to go on: lists of arrays by name, and notes that JSON can hold."""

    notes: dict[str, Any]
    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)


def folder() -> Path:
    """Where states lie: $LEAF_STATE, else leaf/ in $XDG_CACHE_HOME, else ~/.cache/leaf; there in `training`."""
    chosen = os.environ.get("LEAF_STATE")
    if chosen:
        return Path(chosen) / "training"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leaf" / "training"


def run_key(parts: Mapping[str, Any], arrays: Sequence[np.ndarray] = (), code: Sequence[Path] = ()) -> str:
    """Hash everything that determines a run, 32 hex digits.

    Args:
        parts: parameters, versions, hashes of data files: what JSON can hold.
        arrays: initial weights.
        code: folders; every Python file in them counts by its name and content.
    """
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16)
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    for root in code:
        for path in sorted(root.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class Keeper:
    """Keeps the state of one run. Made by `keeping`, which holds its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requeue = path.with_suffix(".requeue")

    def save(self, state: State) -> None:
        """Replace the state on disk by `state`, whole or not at all."""
        counts = {name: len(arrays) for name, arrays in state.arrays.items()}
        notes = json.dumps({"key": self.path.stem, "counts": counts, "notes": state.notes})
        named: dict[str, Any] = {"notes": np.array(notes)}
        for name, arrays in state.arrays.items():
            named |= {f"{name}.{i}": array for i, array in enumerate(arrays)}
        with store.replacing(self.path) as partial:
            np.savez(partial, **named)

    def load(self) -> State | None:
        """The state on disk; None where there is none, or, with a warning, where it is damaged or of another run."""
        self.requeue.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                notes = json.loads(str(file["notes"]))
                if notes["key"] != self.path.stem:
                    raise ValueError("it belongs to another run")
                arrays = {name: [file[f"{name}.{i}"] for i in range(n)] for name, n in notes["counts"].items()}
            return State(notes["notes"], arrays)
        except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
            warnings.warn(f"{self.path}: not used, training starts anew ({error})", stacklevel=2)
            return None

    def remove(self) -> None:
        """Forget the run: it ended well."""
        self.path.unlink(missing_ok=True)
        self.requeue.unlink(missing_ok=True)

    def mark_requeue(self, epoch: int) -> None:
        """Leave a marker that says: stopped from outside, run the same command again."""
        store.write_json({"epoch": epoch, "key": self.path.stem}, self.requeue)


@contextmanager
def keeping(key: str, root: Path | None = None) -> Iterator[Keeper]:
    """Hold the state of run `key` for this process alone; it is removed when the block ends well.

    A second process with the same key (the orphan of a killed `dvc` and its successor) says so and waits.
    """
    root = root or folder()
    root.mkdir(parents=True, exist_ok=True)
    _forget_old(root)
    holder = root / f"{key}.pid"
    lock = filelock.FileLock(root / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        process = holder.read_text() if holder.exists() else "?"
        print(
            f"training: process {process} is at work on this very run; waiting for it "
            f"(stop it with `kill {process}` to go on from its last finished epoch)",
            file=sys.stderr,
            flush=True,
        )
        lock.acquire()
    try:
        holder.write_text(str(os.getpid()))
        keeper = Keeper(root / f"{key}.npz")
        yield keeper
        keeper.remove()
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def waiting_runs(root: Path | None = None) -> list[Path]:
    """Markers of runs that were stopped from outside and wait for the same command again, oldest first."""
    return sorted((root or folder()).glob("[!.]*.requeue"), key=lambda path: path.stat().st_mtime)


def _forget_old(root: Path) -> None:
    horizon = time.time() - KEPT_DAYS * 86400
    for path in root.iterdir():
        if path.suffix in (".npz", ".requeue") and path.stat().st_mtime < horizon:
            path.unlink(missing_ok=True)


def fix_seeds(seed: int) -> None:
    """Seed Python, numpy and the backend, start names anew, and have TensorFlow use deterministic operations only.

    Call it before the network is built: its initial weights and its dropout follow from the seed.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        sys.modules["tensorflow"].config.experimental.enable_op_determinism()  # Keras has imported it


def versions() -> dict[str, str]:
    """Python, Keras, numpy and the backend with its version: what equal bits need to be equal."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "numpy": np.__version__,
        "backend": f"{backend} {sys.modules[backend].__version__}",
    }


STATUS = 128 + signal.SIGTERM


@contextmanager
def noticing_sigterm() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether SIGTERM came.

    The signal only sets a flag: an exception raised by a handler may land inside a step, where TensorFlow is left in
    the middle of it and JAX swallows it. A second SIGTERM ends the process at once.
    """
    came = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        came.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
