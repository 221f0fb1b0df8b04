"""A Slurm cluster: a job is one array, signalled before its time limit, requeued and resumed."""

from typing import Any

from leaf.runner.config import Slurm
from leaf.runner.engines.processes import ProcessEngine, job_files
from leaf.runner.records import Record


class SlurmEngine(ProcessEngine):
    """Engine `slurm`; Slurm gives out the GPUs, and `squeue` with the jobs' own files tells how they go."""

    target: Slurm

    def job(self) -> dict[str, Any]:
        return {"devices": [], "requeues": self.target.requeues}

    def submit(self, record: Record, job: dict[str, Any]) -> str:
        options = sbatch_options(self.target, record.id, len(record.experiments))
        answer = self.host.call("sbatch", **self._request(record), files=job_files(job), options=options)
        return f"{answer['folder']}, Slurm job {answer['slurm']}"


def sbatch_options(target: Slurm, identity: str, experiments: int) -> list[str]:
    """The arguments of sbatch. SIGTERM goes to the task alone, which passes it on and asks to be requeued."""
    limit = f"%{target.parallel}" if target.parallel else ""
    options = [
        f"--array=0-{experiments - 1}{limit}",
        f"--job-name=leaf-{identity}",
        f"--time={target.time_limit}",
        "--requeue",
        "--open-mode=append",
        f"--nodes={target.nodes}",
        "--ntasks-per-node=1",
    ]
    if target.signal_before:
        options.append(f"--signal=B:TERM@{target.signal_before}")
    if target.gpus_per_job:
        kind = f"{target.gpu_type}:" if target.gpu_type else ""
        options.append(f"--gres=gpu:{kind}{target.gpus_per_job}")
    for name, value in (("partition", target.partition), ("account", target.account), ("cpus-per-task", target.cpus)):
        if value is not None:
            options.append(f"--{name}={value}")
    if target.memory is not None:
        options.append(f"--mem={target.memory}G")
    return options
