"""A stage on every node of a Slurm job: one process a node, each with all the GPUs of its node."""

import os
import signal
import socket
import subprocess
import sys

from leaf.errors import LeafError
from leaf.training.distribution import PROCESSES


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
