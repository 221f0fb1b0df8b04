"""The checkpoint of a training: the same command resumes after a kill and ends with the same bits.

It lies outside the project: DVC deletes a stage's outputs before it runs it. Each finished epoch replaces the file
whole; a lock keeps two processes from doing the same training.
"""

import hashlib
import json
import os
import platform
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import keras
import numpy as np

from leaf import store

KEPT_DAYS = 30  # a checkpoint that was not used for so long is removed


@dataclass
class Checkpoint:
    """What a training needs to resume: lists of arrays by name, and values that JSON can hold."""

    values: dict[str, Any]
    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)


def checkpoint_folder() -> Path:
    """`training` in $LEAF_STATE, else in leaf/ of $XDG_CACHE_HOME, else in ~/.cache/leaf."""
    chosen = os.environ.get("LEAF_STATE")
    if chosen:
        return Path(chosen) / "training"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leaf" / "training"


def training_key(parts: Mapping[str, Any], arrays: Sequence[np.ndarray] = (), code: Sequence[Path] = ()) -> str:
    """Hash everything that determines a training, 32 hex digits: its checkpoint is used by no other.

    Args:
        parts: parameters, versions, hashes of data files: what JSON can hold.
        arrays: initial weights.
        code: folders; the name and content of every Python file in them count.
    """
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16)
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    for root in code:
        for path in sorted(root.rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class CheckpointFile:
    """The file that a training's checkpoint is written to. Made by `locked_checkpoint`, which holds its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requeue = path.with_suffix(".requeue")

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint on disk, whole or not at all."""
        counts = {name: len(arrays) for name, arrays in checkpoint.arrays.items()}
        header = json.dumps({"key": self.path.stem, "counts": counts, "values": checkpoint.values})
        named: dict[str, Any] = {"header": np.array(header)}
        for name, arrays in checkpoint.arrays.items():
            named |= {f"{name}.{i}": array for i, array in enumerate(arrays)}
        with store.replacing(self.path) as partial:
            np.savez(partial, **named)

    def load(self) -> Checkpoint | None:
        """The checkpoint on disk; None where there is none or, with a warning, where it cannot be used."""
        self.requeue.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                if header["key"] != self.path.stem:
                    raise ValueError("it belongs to another training")
                arrays = {name: [file[f"{name}.{i}"] for i in range(n)] for name, n in header["counts"].items()}
            return Checkpoint(header["values"], arrays)
        except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
            warnings.warn(f"{self.path}: not used, training starts anew ({error})", stacklevel=2)
            return None

    def remove(self) -> None:
        """Delete the checkpoint: the training is complete."""
        self.path.unlink(missing_ok=True)
        self.requeue.unlink(missing_ok=True)

    def mark_requeue(self, epoch: int) -> None:
        """Write a marker file that says: stopped from outside, run the same command again."""
        store.write_json({"epoch": epoch, "key": self.path.stem}, self.requeue)


@contextmanager
def locked_checkpoint(key: str, root: Path | None = None) -> Iterator[CheckpointFile]:
    """Give the checkpoint file of training `key` to this process alone; delete it when the block ends without error.

    A second process with the same key (as after `dvc` was killed and its stage lives on) says so and waits.
    """
    root = root or checkpoint_folder()
    root.mkdir(parents=True, exist_ok=True)
    _remove_old(root)
    holder = root / f"{key}.pid"
    lock = filelock.FileLock(root / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        process = holder.read_text() if holder.exists() else "?"
        print(
            f"training: process {process} is doing this same training; waiting for it "
            f"(stop it with `kill {process}` to resume from its last finished epoch)",
            file=sys.stderr,
            flush=True,
        )
        lock.acquire()
    try:
        holder.write_text(str(os.getpid()))
        checkpoint_file = CheckpointFile(root / f"{key}.npz")
        yield checkpoint_file
        checkpoint_file.remove()
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _remove_old(root: Path) -> None:
    oldest = time.time() - KEPT_DAYS * 86400
    for path in root.iterdir():
        if path.suffix in (".npz", ".requeue") and path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)


def fix_seeds(seed: int) -> None:
    """Seed Python, numpy and the backend, reset automatic names, make TensorFlow use deterministic operations only.

    Call it before the network is built: its initial weights and its dropout depend on the seed.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        sys.modules["tensorflow"].config.experimental.enable_op_determinism()  # Keras has imported it


def versions() -> dict[str, str]:
    """Versions of Python, Keras, numpy and the backend: equal results need equal ones."""
    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "numpy": np.__version__,
        "backend": f"{backend} {sys.modules[backend].__version__}",
    }
