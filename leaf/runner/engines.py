"""The engines: each takes a job to its target, tells how it goes there, and ends it.

`local` and `ssh` start detached processes, which outlive the connection and hold one lock per GPU; `slurm` submits the
job as one array; `skypilot` rents a machine, restarts it after a spot machine was taken away, and ends it when idle.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import yaml

from leaf.errors import LeafError
from leaf.runner import repository
from leaf.runner.config import GpuTarget, Local, Shell, SkyPilot, Slurm, Ssh, Target
from leaf.runner.connection import Host
from leaf.runner.plan import Record

LOCAL_FOLDER = Path(".dvc") / "tmp" / "leaf" / "target"
CLOUD_FOLDER = Path(".dvc") / "tmp" / "leaf" / "cloud"


class Status(NamedTuple):
    """An experiment's state, one of queued, running, unknown and those of `records.ENDED`, and a note on it."""

    state: str
    note: str = ""


class Engine(Protocol):
    """Takes a job to its target, tells how it goes there, and ends it. Every method may raise ConnectionLostError."""

    def submit(self, record: Record, job: dict[str, Any]) -> str:
        """Start the job; the answer says where it is."""
        ...

    def status(self, record: Record) -> list[Status]:
        """The state of each experiment, in order."""
        ...

    def log(self, record: Record, index: int, offset: int) -> tuple[str, int]:
        """The log of an experiment from byte `offset`, and where the next part begins."""
        ...

    def cancel(self, record: Record, indices: list[int]) -> list[int]:
        """End the experiments with every process they started; the answer has those that had not ended."""
        ...

    def job(self) -> dict[str, Any]:
        """What the engine adds to job.json."""
        ...


def engine_for(target: Target) -> Engine:
    """The engine that a target names."""
    if isinstance(target, Slurm):
        return SlurmEngine(target)
    if isinstance(target, (Local, Ssh)):
        return ProcessEngine(target)
    if isinstance(target, SkyPilot):
        return CloudEngine(target)
    raise TypeError(f"no engine for {type(target)}")


def rehearsal(target: Target, experiments: int) -> str:
    """What an engine would be told, for `--dry-run`: SkyPilot's task or Slurm's options; nothing for a process."""
    if isinstance(target, SkyPilot):
        return yaml.safe_dump(task_yaml(target, "JOB", experiments, Path("JOB")), sort_keys=False)
    if isinstance(target, Slurm):
        return "sbatch " + " ".join(sbatch_options(target, "JOB", experiments)) + "\n"
    return ""


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
        if not isinstance(self.target, GpuTarget):
            return {}
        devices = [f"gpu-{number}" for number in self.target.gpus] or ["machine"]
        held = {"devices": devices, "devices_each": self.target.gpus_per_job}
        if isinstance(self.target, Local):
            path = [*self.target.path, str(Path(sys.executable).parent)]
            return {**held, "path": path, "cache": str(_cache()), "state": False}
        return held

    def submit(self, record: Record, job: dict[str, Any]) -> str:
        return str(self.host.call("start", **self._request(record), files=job_files(job))["folder"])

    def status(self, record: Record) -> list[Status]:
        answer = self.host.call("states", **self._request(record))
        return [Status(**status) for status in answer["states"]]

    def log(self, record: Record, index: int, offset: int) -> tuple[str, int]:
        answer = self.host.call("log", **self._request(record), index=index, offset=offset)
        return answer["text"], answer["next"]

    def cancel(self, record: Record, indices: list[int]) -> list[int]:
        return list(self.host.call("cancel", **self._request(record), indices=indices)["cancelled"])

    def _request(self, record: Record) -> dict[str, Any]:
        return {"folder": self.folder, "id": record.id, "experiments": len(record.experiments)}


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


class CloudEngine:
    """Engine `skypilot`. One machine runs a job's experiments one after another, so its cost is that of one machine.

    A spot machine is a managed job (`sky jobs launch`), which SkyPilot starts again when the cloud takes it away; what
    is at the origin by then is not run again, and training resumes where `state_bucket` keeps its states.
    """

    def __init__(self, target: SkyPilot) -> None:
        self.target = target

    def job(self) -> dict[str, Any]:
        return {"stream": True}

    def submit(self, record: Record, job: dict[str, Any]) -> str:
        folder = CLOUD_FOLDER / record.id
        folder.mkdir(parents=True)
        for name, text in job_files(job).items():
            (folder / name).write_text(text, encoding="utf-8")
        description = folder.with_suffix(".yaml")
        task = task_yaml(self.target, record.id, len(record.experiments), folder.absolute())
        description.write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
        self._sky(*launch_command(self.target, _name(record), description))
        return f"SkyPilot's hands as {_name(record)}"

    def status(self, record: Record) -> list[Status]:
        """An experiment whose results are at the origin is done; of the others SkyPilot alone can tell."""
        names = [one.name for one in record.experiments]
        there = repository.at_remote(self.target.git_remote, record.revision, names)
        look = "sky jobs queue" if self.target.spot else f"sky queue {_name(record)}"
        return [Status("done") if name in there else Status("unknown", f"`{look}` tells more") for name in names]

    def log(self, record: Record, index: int, offset: int) -> tuple[str, int]:  # noqa: ARG002
        """SkyPilot's log of the whole job, whichever experiment is asked for."""
        command = ["jobs", "logs", "--no-follow", "-n"] if self.target.spot else ["logs", "--no-follow"]
        text = self._sky(*command, _name(record), accepted=range(100, 104))  # what it says of a job's own state
        return text[offset:], len(text)

    def cancel(self, record: Record, indices: list[int]) -> list[int]:
        """End the machine; single experiments of a job cannot be ended."""
        if len(indices) != len(record.experiments):
            raise LeafError(f"{record.id}: a job in the cloud ends as a whole; name the job, not an experiment")
        self._sky(*(["jobs", "cancel", "-y", "-n"] if self.target.spot else ["down", "-y"]), _name(record))
        return indices

    @staticmethod
    def _sky(*arguments: str, accepted: Collection[int] = ()) -> str:
        if shutil.which("sky") is None:
            raise LeafError("sky: not found; install SkyPilot in an environment of its own, see docs/remote.md")
        answer = subprocess.run(["sky", *arguments], capture_output=True, text=True, check=False)
        if answer.returncode and answer.returncode not in accepted:
            complaint = [line for line in (answer.stderr or answer.stdout).splitlines() if line.strip()]
            raise LeafError(f"sky {arguments[0]}: {complaint[-1] if complaint else 'failed'}")
        return answer.stdout


def task_yaml(target: SkyPilot, identity: str, experiments: int, folder: Path) -> dict[str, Any]:
    """The description that `sky launch` takes. The job's values are in the mounted folder, none is in the script."""
    resources: dict[str, Any] = {
        "accelerators": target.accelerators,
        "use_spot": target.spot,
        "disk_size": target.disk,
        "autostop": {"idle_minutes": target.idle_minutes, "down": True},
    }
    if target.cloud:
        resources["infra"] = "/".join(part for part in (target.cloud, target.region) if part)
    if target.hourly_cost is not None:
        resources["max_hourly_cost"] = target.hourly_cost
    home = f"~/leaf/jobs/{identity}"
    mounts: dict[str, Any] = {home: str(folder)}
    if target.state_bucket:
        mounts["~/leaf/state"] = {"source": target.state_bucket, "mode": "MOUNT"}
    numbers = " ".join(map(str, range(experiments)))
    run = ["status=0", f"for index in {numbers}; do", f"  python3 {home}/task.py {home} $index || status=1", "done"]
    script = "\n".join([*run, "exit $status", ""])
    return {"name": f"leaf-{identity}", "resources": resources, "file_mounts": mounts, "run": script}


def launch_command(target: SkyPilot, name: str, description: Path) -> list[str]:
    """The arguments of `sky`; a spot machine is a managed job, for only those are started again."""
    if target.spot:
        return ["jobs", "launch", "-y", "-d", "-n", name, str(description)]
    return ["launch", "-y", "-d", "-c", name, str(description)]


def _name(record: Record) -> str:
    return f"leaf-{record.id}"


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
