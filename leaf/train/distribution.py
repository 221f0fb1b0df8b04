"""One training on several devices and processes: `distribution: data_parallel`, by keras.distribution on JAX.

Every process reads its own part of each batch and learns from it; Keras's JAX trainer averages the gradients
over all of them, so an update is that of the whole batch. Only the first process writes files.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np

from leaf.errors import LeafError
from leaf.train.checkpoint import Checkpoint, CheckpointFile, checkpoint_folder, locked_checkpoint
from leaf.train.recipe import Recipe

PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"  # set where this is one of several processes, as Keras documents


def set_up_distribution(recipe: Recipe) -> int:
    """Set up the distribution that `recipe` asks for; call it before anything is computed.

    Returns:
        The number of devices that share a batch, in all processes together.

    Raises:
        LeafError: where Keras does not run on JAX, or the devices cannot share a batch evenly.
    """
    if recipe.distribution == "none":
        return 1
    if keras.backend.backend() != "jax":
        raise LeafError(
            f"distribution: data_parallel needs Keras on JAX, and it runs on {keras.backend.backend()}; "
            "set the environment's KERAS_BACKEND to jax, or distribution to none"
        )
    if PROCESSES in os.environ:
        number = os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID") or os.environ["SLURM_PROCID"]
        keras.distribution.initialize(process_id=int(number))
    devices = keras.distribution.list_devices()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    key = "micro_batch" if recipe.micro_batch else "batch_size"
    if getattr(recipe, key) % len(devices):
        if not is_first_process():
            raise SystemExit(2)  # one line, not one for each process
        raise LeafError(f"{key}: {getattr(recipe, key)}; valid: a multiple of {len(devices)}, the number of devices")
    return len(devices)


def process_index_and_count() -> tuple[int, int]:
    """This process's index, from 0, and how many processes there are."""
    if keras.distribution.distribution() is None:
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def is_first_process() -> bool:
    """Whether this is the process that writes files."""
    return process_index_and_count()[0] == 0


def share_of_batch(recipe: Recipe) -> np.ndarray | None:
    """The places in a batch, (n,) int64, that this process reads and learns from: its part of each micro-batch.

    None where it is alone. Those of all processes are the batch.
    """
    index, processes = process_index_and_count()
    if processes == 1:
        return None
    return np.arange(recipe.batch_size).reshape(recipe.accumulation, processes, -1)[:, index].ravel()


def on_all_devices(arrays: Any) -> Any:
    """This process's rows of a batch, an array or a tuple of them, as JAX's arrays over all processes' devices."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return arrays
    import jax

    def place(array: np.ndarray) -> Any:
        rows = (len(array) * jax.process_count(), *array.shape[1:])
        return jax.make_array_from_process_local_data(distribution.get_data_layout(rows).backend_layout, array)

    return keras.tree.map_structure(place, arrays)


def predict_together(
    model: keras.Model, take: Callable[[np.ndarray], np.ndarray], count: int, batch_size: int
) -> Iterator[np.ndarray]:
    """Predict images 0 … `count` − 1, batch by batch; each process reads its share, and each gets all outputs."""
    index, processes = process_index_and_count()
    weights = [[each.value for each in group] for group in (model.trainable_variables, model.non_trainable_variables)]
    for start in range(0, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)  # the last batch is filled up
        images = on_all_devices(take(np.split(rows, processes)[index]))
        yield np.asarray(_prediction(model)(*weights, images))[: count - start]


@lru_cache(1)
def _prediction(model: keras.Model) -> Callable[..., Any]:
    """The compiled network, whose outputs every device gets."""
    import jax

    mesh = keras.distribution.distribution().device_mesh.backend_mesh
    outputs = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(lambda *values: model.stateless_call(*values, training=False)[0], out_shardings=outputs)


@contextmanager
def undistributed() -> Iterator[None]:
    """Switch the distribution off in the `with` block: for layers that a process applies outside the training step."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


@contextmanager
def sigterm_flag() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether SIGTERM was received.

    The signal only sets a flag: an exception raised by a handler may land inside a step, where TensorFlow is left in
    the middle of it and JAX swallows it. A second SIGTERM ends the process at once.
    """
    received = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        received.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield received.is_set
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield received.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def shared_sigterm_flag() -> Iterator[Callable[[], bool]]:
    """`sigterm_flag` for all processes: called after every step, it gives True in each of them after the same step.

    If one process left alone, the others would wait for it in their next step. JAX's own handler of SIGTERM, installed
    when the processes were joined, tells all of them and agrees on a step.
    """
    if process_index_and_count()[1] == 1:
        with sigterm_flag() as received:
            yield received
        return
    from jax.experimental import multihost_utils

    steps = count(1)
    yield lambda: multihost_utils.reached_preemption_sync_point(next(steps))


class SharedCheckpointFile(CheckpointFile):
    """A checkpoint that several processes read and only the first one writes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.writes = is_first_process()  # now: the thread that saves does not know the distribution

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint on disk, in the first process."""
        if self.writes:
            super().save(checkpoint)

    def load(self) -> Checkpoint | None:
        """The checkpoint on disk. Raises LeafError where the processes do not see the same one."""
        checkpoint = super().load()
        from jax.experimental import multihost_utils

        history = json.dumps(checkpoint.values["history"]) if checkpoint else ""
        digest = np.frombuffer(hashlib.blake2b(history.encode(), digest_size=16).digest(), np.uint8)
        if not (multihost_utils.process_allgather(digest) == digest).all():
            raise LeafError(f"LEAF_STATE: {self.path.parent} differs between the processes; valid: a folder they share")
        return checkpoint

    def mark_requeue(self, epoch: int) -> None:
        """Write the marker file, in the first process."""
        if self.writes:
            super().mark_requeue(epoch)


@contextmanager
def shared_checkpoint(key: str) -> Iterator[CheckpointFile]:
    """`locked_checkpoint` for all processes: the first holds the lock, and none reads the checkpoint before that."""
    if process_index_and_count()[1] == 1:
        with locked_checkpoint(key) as file:
            yield file
        return
    from jax.experimental import multihost_utils

    with locked_checkpoint(key) if is_first_process() else nullcontext():
        multihost_utils.sync_global_devices("the lock is held")
        yield SharedCheckpointFile(checkpoint_folder() / f"{key}.npz")


def run_on_all_nodes(module: str, distribution: str) -> int | None:
    """Run `python -m MODULE` on every node of the Slurm job that this process is in, and wait.

    Returns:
        The exit status; None where this process shall do the work itself, on one node or as one of those processes.

    Raises:
        LeafError: where there are several nodes and `distribution` would use one.
    """
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    if nodes == 1 or PROCESSES in os.environ:
        return None
    if distribution == "none":
        raise LeafError(f"distribution: none, on {nodes} nodes; valid: data_parallel, or one node (runner.yaml: nodes)")
    if shutil.which("srun") is None:
        raise LeafError(
            "srun: not found, and it starts the training on each node; valid: `path` in runner.yaml, no image"
        )
    added = {PROCESSES: str(nodes), "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"{socket.gethostname()}:{_free_port()}"}
    # Otherwise JAX takes one GPU for each process that Slurm starts.
    added["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(int(os.environ.get("SLURM_GPUS_ON_NODE", "1")))))
    command = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--kill-on-bad-exit=1"]
    if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):
        command.append(f"--cpus-per-task={cpus}")  # srun does not take it from sbatch
    command += [sys.executable, "-m", module]
    # A session of its own: srun answers SIGTERM by killing, while `scancel` passes it to the processes.
    with subprocess.Popen(command, env={**os.environ, **added}, start_new_session=True) as step:
        stop = ["scancel", "--signal=TERM", _job()]
        signal.signal(signal.SIGTERM, lambda *_: subprocess.run(stop, check=False))
        return step.wait()


def _job() -> str:
    """The Slurm job of this process; not SLURM_JOB_ID: the last element of an array has the array's number."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
