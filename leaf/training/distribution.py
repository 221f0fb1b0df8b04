"""One training on several devices and processes: `distribution: data_parallel`, through keras.distribution on JAX.

Every process cuts the same batch and learns from a part of it that is its own; Keras's JAX trainer averages the
gradients over all of them, so an update is that of the whole batch. The first process alone writes files.
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path

import keras
import numpy as np

from leaf.errors import LeafError
from leaf.training.dataset import Batch
from leaf.training.recipe import Recipe
from leaf.training.state import Keeper, State, folder, keeping, noticing_sigterm

PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"  # set where this is one of several processes, as Keras documents


def join(recipe: Recipe) -> int:
    """Take part in the distribution that `recipe` asks for; call it before anything is computed.

    Returns:
        The number of devices that share a batch, those of other processes included.

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
        if not first():
            raise SystemExit(2)  # one line, not one for each process
        raise LeafError(f"{key}: {getattr(recipe, key)}; valid: a multiple of {len(devices)}, the number of devices")
    return len(devices)


def place() -> tuple[int, int]:
    """This process's number, counted from 0, and how many there are."""
    if keras.distribution.distribution() is None:
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def first() -> bool:
    """Whether this is the process that writes files."""
    return place()[0] == 0


def share(batch: Batch) -> Batch:
    """The rows of a batch that this process learns from; those of all processes, in order, are the batch."""
    number, processes = place()
    rows = len(batch.images) // processes
    return Batch(*(array[number * rows : (number + 1) * rows] for array in batch))


@contextmanager
def undistributed() -> Iterator[None]:
    """No distribution for a while: for layers that a process applies by itself, outside the training step."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


@contextmanager
def noticing_sigterm_together() -> Iterator[Callable[[], bool]]:
    """`noticing_sigterm` for all processes: asked after every step, each of them hears yes after the same one.

    A process that left alone would have the others wait for it in their next step. With several, JAX's own handler of
    SIGTERM, installed when they joined, tells all of them and settles on a step.
    """
    if place()[1] == 1:
        with noticing_sigterm() as came:
            yield came
        return
    from jax.experimental import multihost_utils

    steps = count(1)
    yield lambda: multihost_utils.reached_preemption_sync_point(next(steps))


class SharedKeeper(Keeper):
    """The state of a run that several processes read and the first one writes."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.writes = first()  # asked here: states are saved from another thread, which Keras tells nothing

    def save(self, state: State) -> None:
        """Replace the state on disk, in the first process."""
        if self.writes:
            super().save(state)

    def load(self) -> State | None:
        """The state on disk, the same in every process. Raises LeafError where they do not see one folder."""
        state = super().load()
        from jax.experimental import multihost_utils

        history = json.dumps(state.notes["history"]) if state else ""
        digest = np.frombuffer(hashlib.blake2b(history.encode(), digest_size=16).digest(), np.uint8)
        if not (multihost_utils.process_allgather(digest) == digest).all():
            raise LeafError(f"LEAF_STATE: {self.path.parent} differs between the processes; valid: a folder they share")
        return state

    def mark_requeue(self, epoch: int) -> None:
        """Leave the marker, in the first process."""
        if self.writes:
            super().mark_requeue(epoch)


@contextmanager
def keeping_together(key: str) -> Iterator[Keeper]:
    """`keeping` for all processes: the first holds the lock, and none reads the state before it does."""
    if place()[1] == 1:
        with keeping(key) as keeper:
            yield keeper
        return
    from jax.experimental import multihost_utils

    with keeping(key) if first() else nullcontext():
        multihost_utils.sync_global_devices("the lock is held")
        yield SharedKeeper(folder() / f"{key}.npz")


def run_on_all_nodes(module: str, distribution: str) -> int | None:
    """Run `python -m MODULE` on every node of the Slurm job that this process is in, and wait.

    Returns:
        The exit status; None where the module is to do its work itself, on one node or as one of those processes.

    Raises:
        LeafError: where there are several nodes and `distribution` would use one.
    """
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    if nodes == 1 or PROCESSES in os.environ:
        return None
    if distribution == "none":
        raise LeafError(f"distribution: none, on {nodes} nodes; valid: data_parallel, or one node (runner.yaml: nodes)")
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
    """The Slurm job of this process; not SLURM_JOB_ID alone, for an array's last element has the array's number."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
