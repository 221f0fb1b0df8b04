"""Data-parallel training on several devices and processes with keras.distribution on JAX.

Each process reads its share of every batch. Keras's JAX trainer averages the gradients over all processes, so each
update is equivalent to an update on the global batch. Only the first process writes files.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import keras
import numpy as np

from leaf.errors import LeafError
from leaf.params import Params
from leaf.train.dataset import accumulation_steps

PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"  # read by Keras; set in every process of a multi-process run


def set_up_distribution(params: Params) -> int:
    """Apply `params.distribution` and return the number of devices in all processes. Call this before any computation.

    Raises:
        LeafError: if Keras does not run on JAX, or the devices cannot share a batch evenly.
    """
    if params.distribution == "none":
        return 1
    if keras.backend.backend() != "jax":
        raise LeafError(
            f"distribution: data_parallel requires the JAX backend, not {keras.backend.backend()}. "
            "Set the environment variable KERAS_BACKEND to jax, or distribution to none."
        )
    if PROCESSES in os.environ:
        number = os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID") or os.environ["SLURM_PROCID"]
        keras.distribution.initialize(process_id=int(number))
    devices = keras.distribution.list_devices()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    key = "micro_batch" if params.micro_batch else "batch_size"
    if getattr(params, key) % len(devices):
        if not is_first_process():
            raise SystemExit(2)  # the first process prints the error
        raise LeafError(f"{key}: {getattr(params, key)}; valid: a multiple of {len(devices)}, the number of devices")
    return len(devices)


def process_index_and_count() -> tuple[int, int]:
    """Return this process's index, from 0, and the number of processes."""
    if keras.distribution.distribution() is None:
        return 0, 1
    import jax

    return jax.process_index(), jax.process_count()


def is_first_process() -> bool:
    """Return whether this is the first process, the only one that writes files."""
    return process_index_and_count()[0] == 0


def share_of_batch(params: Params) -> np.ndarray | None:
    """Return the positions in a batch that this process reads, (n,) int64, or None for a single process."""
    index, processes = process_index_and_count()
    if processes == 1:
        return None
    return np.arange(params.batch_size).reshape(accumulation_steps(params), processes, -1)[:, index].ravel()


def on_all_devices(arrays: Any) -> Any:
    """Combine the rows of a batch from all processes into JAX arrays; `arrays` is one array or a tuple of arrays."""
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
    """Yield the outputs for images 0 … `count` − 1 in batches, in every process; each process reads only its share."""
    index, processes = process_index_and_count()
    weights = [[each.value for each in group] for group in (model.trainable_variables, model.non_trainable_variables)]
    for start in range(0, count, batch_size):
        rows = np.minimum(np.arange(start, start + batch_size), count - 1)  # pad the last batch
        images = on_all_devices(take(np.split(rows, processes)[index]))
        yield np.asarray(_compiled(model)(*weights, images))[: count - start]


@lru_cache(1)
def _compiled(model: keras.Model) -> Callable[..., Any]:
    """Compile the forward pass with its outputs replicated on every device."""
    import jax

    mesh = keras.distribution.distribution().device_mesh.backend_mesh
    outputs = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.jit(lambda *values: model.stateless_call(*values, training=False)[0], out_shardings=outputs)


def run_on_all_nodes(module: str, distribution: str) -> int | None:
    """Run `python -m MODULE` on every node of this Slurm job and return the exit status.

    Return None in a job with one node and in the processes that srun started. The caller then runs the work itself.

    Raises:
        LeafError: if there are several nodes and `distribution` is `none` or srun is missing.
    """
    nodes = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    if nodes == 1 or PROCESSES in os.environ:
        return None
    if distribution == "none":
        raise LeafError(
            f"distribution: none, on {nodes} nodes. Set distribution to data_parallel, or nodes to 1 in runner.yaml."
        )
    if shutil.which("srun") is None:
        raise LeafError(
            "srun: not found, but required to train on several nodes. Add its folder to `path` in runner.yaml."
        )
    with socket.socket() as probe:
        probe.bind(("", 0))
        address = f"{socket.gethostname()}:{probe.getsockname()[1]}"
    added = {PROCESSES: str(nodes), "KERAS_DISTRIBUTION_JOB_ADDRESSES": address}
    # By default, JAX uses one GPU per process started by Slurm.
    added["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(int(os.environ.get("SLURM_GPUS_ON_NODE", "1")))))
    command = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--kill-on-bad-exit=1"]
    if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):
        command.append(f"--cpus-per-task={cpus}")  # srun does not inherit this setting from sbatch
    command += [sys.executable, "-m", module]
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:  # in an array's last element, SLURM_JOB_ID refers to the whole array
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    # On SIGTERM, srun would kill the processes. It therefore runs in its own session, and `scancel` signals them.
    with subprocess.Popen(command, env={**os.environ, **added}, start_new_session=True) as step:
        stop = ["scancel", "--signal=TERM", job]
        signal.signal(signal.SIGTERM, lambda *_: subprocess.run(stop, check=False))
        return step.wait()
