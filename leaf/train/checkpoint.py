"""Training checkpoints: after SIGKILL or SIGTERM, the same command resumes with a bit-identical result.

Checkpoints are stored outside the project, because DVC deletes a stage's outputs before running it.
"""

import contextlib
import hashlib
import json
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from leaf import store
from leaf.errors import LeafError
from leaf.train.distribution import process_index_and_count

MAX_BYTES = 20 * 2**30  # maximum total size of other training runs' checkpoints; the least recently used are removed
_DIGEST = 32  # length in bytes of the SHA-256 digest that precedes the arrays


@dataclass
class Checkpoint:
    """The training state: the history, a row per finished epoch, and lists of arrays by name."""

    history: list[dict[str, Any]]
    arrays: dict[str, list[np.ndarray]]


def training_key(parts: Mapping[str, Any], arrays: Sequence[np.ndarray], code: Sequence[Path]) -> str:
    """Return the name of a training run's checkpoint: a hash (32 hex digits) of everything that determines the run.

    `parts` are JSON values, `arrays` initial weights, and `code` folders of Python files, hashed by name and content.
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
    """A checkpoint on disk, created by `locked_checkpoint`. All processes read it, but only the first writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Determined here, because Keras's distribution is not set in the saving thread.
        self.process, self.processes = process_index_and_count()

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint atomically."""
        if self.process:
            return
        counts = {name: len(arrays) for name, arrays in checkpoint.arrays.items()}
        header = json.dumps({"key": self.path.stem, "counts": counts, "history": checkpoint.history})
        named: dict[str, Any] = {
            f"{name}.{i}": array for name, arrays in checkpoint.arrays.items() for i, array in enumerate(arrays)
        }
        with store.replacing(self.path) as partial, partial.open("wb+") as file:
            file.write(bytes(_DIGEST))
            np.savez(file, header=np.array(header), **named)
            file.seek(_DIGEST)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            file.write(digest)

    def load(self) -> Checkpoint | None:
        """Return the checkpoint, or None if there is none.

        A damaged file is renamed to `.damaged` with a warning, and training starts over.

        Raises:
            LeafError: if several processes see different checkpoints.
        """
        checkpoint = self._read()
        if self.processes > 1:
            from jax.experimental import multihost_utils

            history = json.dumps(checkpoint.history) if checkpoint else ""
            digest = np.frombuffer(hashlib.blake2b(history.encode(), digest_size=16).digest(), np.uint8)
            if not (multihost_utils.process_allgather(digest) == digest).all():
                folder = self.path.parent
                raise LeafError(f"LEAF_STATE: the contents of {folder} differ between processes. Use a shared folder.")
        return checkpoint

    def _read(self) -> Checkpoint | None:
        try:
            with self.path.open("rb") as file:
                stored = file.read(_DIGEST)
                if hashlib.file_digest(file, "sha256").digest() != stored:
                    raise ValueError("wrong SHA-256")
                file.seek(_DIGEST)
                with np.load(file, allow_pickle=False) as archive:
                    header = json.loads(str(archive["header"]))
                    if header["key"] != self.path.stem:
                        raise ValueError("belongs to another training run")
                    arrays = {name: [archive[f"{name}.{i}"] for i in range(n)] for name, n in header["counts"].items()}
            return Checkpoint(header["history"], arrays)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
            aside = self.path.with_suffix(".damaged")
            with contextlib.suppress(FileNotFoundError):  # another process has renamed the file
                self.path.replace(aside)
            warnings.warn(f"{aside}: damaged ({error}); training starts over", stacklevel=2)
            return None


@contextlib.contextmanager
def locked_checkpoint(key: str, root: Path | None = None) -> Iterator[CheckpointFile]:
    """Lock the checkpoint of training run `key` and yield it; delete it if the block ends without an error.

    A second process with the same key prints a message and waits, because the stage started by a killed `dvc` may still
    be running. In a run with several processes, the first one acquires the lock and the others wait for it.
    """
    root = root or store.cache_folder("training")
    root.mkdir(parents=True, exist_ok=True)
    checkpoint_file = CheckpointFile(root / f"{key}.npz")
    with contextlib.nullcontext() if checkpoint_file.process else _lock(root, key):
        if checkpoint_file.processes > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("the lock is held")
        yield checkpoint_file
        if not checkpoint_file.process:
            checkpoint_file.path.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(root: Path, key: str) -> Iterator[None]:
    _make_room(root, key)
    holder = root / f"{key}.pid"
    lock = filelock.FileLock(root / f"{key}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        process = "?"
        with contextlib.suppress(FileNotFoundError):  # the other process has just finished
            process = holder.read_text()
        print(
            f"training: waiting for process {process}, which is running the same training. To take over, run "
            f"`kill {process}`; this command then resumes after the last finished epoch.",
            file=sys.stderr,
            flush=True,
        )
        lock.acquire()
    try:
        holder.write_text(str(os.getpid()))
        yield
    finally:
        holder.unlink(missing_ok=True)
        _release(lock)


def _release(lock: filelock.FileLock) -> None:
    """Remove the lock file and release the lock; FileLock retries if its lock file has been removed."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _make_room(root: Path, key: str) -> None:
    """Remove the least recently used checkpoints of other training runs until the rest fit in `MAX_BYTES`."""
    others = []
    for path in root.iterdir():
        if path.suffix in (".npz", ".damaged") and path.stem != key:
            with contextlib.suppress(FileNotFoundError):  # its training run has just finished
                others.append((path.stat().st_mtime, path.stat().st_size, path))
    taken = sum(size for _, size, _ in others)
    for _, size, path in sorted(others):
        if taken <= MAX_BYTES:
            return
        lock = filelock.FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:  # the training run of this checkpoint is still active
            continue
        path.unlink(missing_ok=True)
        _release(lock)
        taken -= size
        print(
            f"training: removed {path}, the least recently used checkpoint, because checkpoints take up more than "
            f"{MAX_BYTES / 2**30:.0f} GiB",
            file=sys.stderr,
        )
