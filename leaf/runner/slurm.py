"""The engine `slurm`: submit an array job; Slurm assigns the GPUs."""

from typing import Any

from leaf.runner.config import Slurm
from leaf.runner.plan import Record
from leaf.runner.ssh import ProcessEngine, job_files


class SlurmEngine(ProcessEngine):
    """The engine `slurm`; states come from `squeue` and the job folder."""

    target: Slurm

    def job(self) -> dict[str, Any]:
        return {"requeues": self.target.requeues}

    def rehearsal(self, experiments: int) -> str:
        return f"sbatch {' '.join(_sbatch_options(self.target, 'JOB', experiments))}\n"

    def submit(self, record: Record, job: dict[str, Any]) -> str:
        options = _sbatch_options(self.target, record.id, len(record.experiments))
        answer = self.host.call("sbatch", **self._request(record), files=job_files(job), options=options)
        return f"{answer['folder']}, Slurm job {answer['slurm']}"


def _sbatch_options(target: Slurm, identity: str, experiments: int) -> list[str]:
    kind = f"{target.gpu_type}:" if target.gpu_type else ""
    options = {
        "array": f"0-{experiments - 1}" + (f"%{target.parallel}" if target.parallel else ""),
        "job-name": f"leaf-{identity}",
        "time": target.time_limit,
        "open-mode": "append",
        "nodes": target.nodes,
        "ntasks-per-node": 1,
        "signal": target.signal_before and f"B:TERM@{target.signal_before}",  # sent only to task.py, which forwards it
        "gres": target.gpus_per_job and f"gpu:{kind}{target.gpus_per_job}",
        "partition": target.partition,
        "account": target.account,
        "cpus-per-task": target.cpus,
        "mem": target.memory and f"{target.memory}G",
    }
    return ["--requeue", *(f"--{name}={value}" for name, value in options.items() if value)]
