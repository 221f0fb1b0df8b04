"""The checkpoint of a training: the same command resumes after a kill and ends with the same bits.

It lies outside the project: DVC deletes a stage's outputs before it runs it. Each finished epoch replaces the file
whole; a lock keeps two processes from doing the same training.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import resource
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
import keras
import numpy as np

from leaf import store

_XLA_FLAG = "--xla_gpu_deterministic_ops=true"
ROOM = 20 * 2**30  # bytes that the checkpoints of other trainings may take; above it the longest unused ones go
_DIGEST = 32  # bytes of SHA-256 in front of the arrays


@dataclass
class Checkpoint:
    """What a training needs to resume: lists of arrays by name, and values that JSON can hold."""

    values: dict[str, Any]
    arrays: dict[str, list[np.ndarray]] = field(default_factory=dict)


def checkpoint_folder() -> Path:
    """`training` in `leaf.store.cache_folder`; it exists afterwards."""
    return store.cache_folder("training")


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
        with store.replacing(self.path) as partial, partial.open("wb+") as file:
            file.write(bytes(_DIGEST))
            np.savez(file, **named)
            file.seek(_DIGEST)
            digest = hashlib.file_digest(file, "sha256").digest()
            file.seek(0)
            file.write(digest)

    def load(self) -> Checkpoint | None:
        """The checkpoint on disk; None where there is none.

        One that is damaged or of another training is set aside as `.damaged`, with a warning: training starts anew.
        """
        self.requeue.unlink(missing_ok=True)
        if not self.path.exists():
            return None
        try:
            return self._read()
        except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
            aside = self.path.with_suffix(".damaged")
            self.path.replace(aside)
            warnings.warn(f"{aside}: not used, training starts anew ({error})", stacklevel=2)
            return None

    def _read(self) -> Checkpoint:
        with self.path.open("rb") as file:
            stored = file.read(_DIGEST)
            if hashlib.file_digest(file, "sha256").digest() != stored:
                raise ValueError("its bytes have changed since it was written")
            file.seek(_DIGEST)
            with np.load(file, allow_pickle=False) as archive:
                header = json.loads(str(archive["header"]))
                if header["key"] != self.path.stem:
                    raise ValueError("it belongs to another training")
                arrays = {name: [archive[f"{name}.{i}"] for i in range(n)] for name, n in header["counts"].items()}
        return Checkpoint(header["values"], arrays)

    def remove(self) -> None:
        """Delete the checkpoint: the training is complete."""
        self.path.unlink(missing_ok=True)
        self.requeue.unlink(missing_ok=True)

    def mark_requeue(self, epoch: int) -> None:
        """Write a marker file that says: stopped from outside, run the same command again."""
        store.write_json({"epoch": epoch, "key": self.path.stem}, self.requeue)


@contextlib.contextmanager
def locked_checkpoint(key: str, root: Path | None = None) -> Iterator[CheckpointFile]:
    """Give the checkpoint file of training `key` to this process alone; delete it when the block ends without error.

    A second process with the same key (as after `dvc` was killed and its stage lives on) says so and waits.
    """
    root = root or checkpoint_folder()
    root.mkdir(parents=True, exist_ok=True)
    _make_room(root, key)
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


def _make_room(root: Path, key: str) -> None:
    """Remove the longest unused checkpoints of other trainings while these take more than `ROOM`; say so."""
    others = [path for path in root.iterdir() if path.suffix in (".npz", ".damaged") and path.stem != key]
    sizes = {path: path.stat() for path in others}
    taken = sum(stat.st_size for stat in sizes.values())
    for path in sorted(others, key=lambda path: sizes[path].st_mtime):
        if taken <= ROOM:
            return
        lock = filelock.FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:  # its training is at work
            continue
        with lock:
            path.unlink(missing_ok=True)
        taken -= sizes[path].st_size
        print(
            f"training: removed the checkpoint {path}, unused for longest: together they take over "
            f"{ROOM / 2**30:.0f} GiB",
            file=sys.stderr,
        )


def fix_seeds(seed: int, deterministic: bool = True) -> None:
    """Seed Python, numpy and the backend, reset automatic names.

    Call it before the network is built, whose initial weights and dropout depend on the seed, and before JAX computes.

    Args:
        seed: from 0.
        deterministic: let TensorFlow and JAX use deterministic operations only, for as long as this process lives. On
            TensorFlow Keras then leaves XLA out; JAX's flag ends the choice of the fastest kernel by trial. Of
            PyTorch's bits nothing is promised.
    """
    if deterministic and keras.backend.backend() == "jax" and _XLA_FLAG not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA_FLAG}".strip()
    keras.backend.clear_session()
    if keras.backend.backend() != "tensorflow":
        sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]  # Keras would import it to seed it
    keras.utils.set_random_seed(seed)
    if sys.modules.get("tensorflow", keras) is None:
        del sys.modules["tensorflow"]
    if deterministic and keras.backend.backend() == "tensorflow":
        sys.modules["tensorflow"].config.experimental.enable_op_determinism()  # Keras has imported it


def versions() -> dict[str, str]:
    """Versions of Python, Keras, numpy, the backend and a GPU's driver: equal results need equal ones."""
    backend, device = keras.backend.backend(), device_kind()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "numpy": np.__version__,
        "backend": f"{backend} {sys.modules[backend].__version__}",
        "device": device,
        "driver": "" if device == "cpu" else driver(),
    }


def device_kind() -> str:
    """What the backend computes on: `cpu`, or the model of the GPU. Bits are equal on one kind only."""
    backend = sys.modules[keras.backend.backend()]
    if backend.__name__ == "jax":
        return str(backend.devices()[0].device_kind).lower()
    if backend.__name__ == "torch":
        return backend.cuda.get_device_name() if backend.cuda.is_available() else "cpu"
    gpus = backend.config.list_physical_devices("GPU")
    return backend.config.experimental.get_device_details(gpus[0]).get("device_name", "gpu") if gpus else "cpu"


def driver(path: str | Path = "/proc/driver/nvidia/version") -> str:
    """The version of NVIDIA's driver, from what Linux tells of its kernel module; empty where there is none."""
    with contextlib.suppress(OSError):
        found = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", Path(path).read_text(encoding="utf-8"))
        return found[0] if found else ""
    return ""


def peak_memory() -> int:
    """The most bytes held so far: of the GPU that the backend computes on, else of this process."""
    backend = sys.modules[keras.backend.backend()]
    if device_kind() == "cpu":
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    if backend.__name__ == "jax":
        return int((backend.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))
    if backend.__name__ == "torch":
        return int(backend.cuda.max_memory_allocated())
    return int(backend.config.experimental.get_memory_info("GPU:0")["peak"])
