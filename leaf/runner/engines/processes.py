"""Detached processes on this machine or over ssh: each outlives the connection and holds one lock per GPU."""

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from leaf.errors import LeafError
from leaf.runner.config import Local, Shell, Slurm
from leaf.runner.records import Record, State
from leaf.runner.transport import Host

LOCAL_FOLDER = Path(".dvc") / "tmp" / "leaf" / "target"


class ProcessEngine:
    """Engines `local` and `ssh`."""

    def __init__(self, target: Local | Shell) -> None:
        self.target = target
        if isinstance(target, Local):
            self.host = Host()
            self.folder = str(LOCAL_FOLDER.absolute())
        else:
            self.host = Host(target.host, target.python, target.ssh_config)
            self.folder = target.folder

    def job(self) -> dict[str, Any]:
        """The locks to wait for; on this machine its own Python and DVC cache, so that nothing is copied."""
        devices = [f"gpu-{number}" for number in getattr(self.target, "gpus", [])] or ["machine"]
        if isinstance(self.target, Local):
            path = [*self.target.path, str(Path(sys.executable).parent)]
            return {"devices": devices, "path": path, "cache": str(_cache()), "state": False}
        return {"devices": devices}

    def submit(self, record: Record, job: dict[str, Any]) -> str:
        return str(self.host.call("start", **self._request(record), files=job_files(job))["folder"])

    def states(self, record: Record) -> list[State]:
        answer = self.host.call("states", **self._request(record))
        return [State(**state) for state in answer["states"]]

    def log(self, record: Record, index: int, offset: int) -> tuple[str, int]:
        answer = self.host.call("log", **self._request(record), index=index, offset=offset)
        return answer["text"], answer["next"]

    def cancel(self, record: Record, indices: list[int]) -> list[int]:
        return list(self.host.call("cancel", **self._request(record), indices=indices)["cancelled"])

    def _request(self, record: Record) -> dict[str, Any]:
        return {"folder": self.folder, "id": record.id, "experiments": len(record.experiments)}


def job_files(job: dict[str, Any]) -> dict[str, str]:
    """The files of a job's folder: what to run, and the program that runs it."""
    return {
        "job.json": json.dumps(job, indent=1),
        "task.py": files("leaf.runner.agent").joinpath("task.py").read_text(encoding="utf-8"),
    }


def _cache() -> Path:
    """The folder of this project's DVC cache."""
    answer = subprocess.run(["dvc", "cache", "dir"], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise LeafError(f"{Path.cwd()}: no DVC project; run in the project's folder")
    return Path(answer.stdout.strip()).absolute()


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
