"""The engines of runner.yaml.

`local` and `ssh` start detached processes that outlive the connection and lock their GPUs. `slurm` submits an array
job; Slurm assigns the GPUs. `skypilot` rents a machine, restarts it after a spot interruption, and stops it when idle.
"""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Collection
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leaf.errors import LeafError, output_of
from leaf.runner import repository
from leaf.runner.agent.request_handler import ANSWER
from leaf.runner.config import GpuTarget, Local, Shell, SkyPilot, Slurm, Target
from leaf.runner.plan import Record

LOCAL_FOLDER = Path(".dvc") / "tmp" / "leaf" / "target"
CLOUD_FOLDER = Path(".dvc") / "tmp" / "leaf" / "cloud"
TIMEOUT = 180  # seconds to wait for a response
# Never prompt, reject new or changed host keys, and detect a dead connection within a minute.
SSH_OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
)


class ConnectionLostError(LeafError):
    """Raised if the target is unreachable. Its jobs keep running."""


class Host:
    """This machine, or `name` over OpenSSH with the configuration file `config`.

    The command line is always `python3 -`, and the request is data on stdin, so no shell parses user input.
    """

    def __init__(self, name: str | None = None, python: str | None = None, config: str | None = None) -> None:
        self.name = name
        self.command = [python or sys.executable, "-"]
        if name is not None:
            options = [part for option in SSH_OPTIONS for part in ("-o", option)]
            settings = ["-F", config] if config else []
            self.command = ["ssh", *settings, *options, "--", name, f"{shlex.quote(python or 'python3')} -"]

    def call(self, verb: str, **request: Any) -> dict[str, Any]:
        """Send a request to `leaf.runner.agent.request_handler` and return the answer.

        Raises:
            ConnectionLostError: if the target is unreachable.
            LeafError: if the target rejects the request.
        """
        # ASCII JSON in a JSON string is a valid Python literal, and no content can terminate the literal early.
        data = json.dumps(json.dumps({"verb": verb, **request}))
        program = f"{_agent('request_handler.py')}\n\nanswer_to(json.loads({data}))\n"
        try:
            answer = subprocess.run(
                self.command, input=program.encode(), capture_output=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            raise ConnectionLostError(f"{self}: no response within {TIMEOUT} s") from None
        except FileNotFoundError:
            raise LeafError(f"{self.command[0]}: not found. Install it.") from None
        for line in answer.stdout.decode("utf-8", "replace").splitlines():
            if line.startswith(ANSWER):
                result: dict[str, Any] = json.loads(line[len(ANSWER) :])
                if "unreachable" in result:
                    raise ConnectionLostError(f"{self}: {result['unreachable']}")
                if "error" in result:
                    raise LeafError(f"{self}: {result['error']}")
                return result
        raise self._no_answer(answer.returncode, answer.stderr.decode("utf-8", "replace"))

    def _no_answer(self, status: int, stderr: str) -> LeafError:
        last = next((line for line in reversed(stderr.splitlines()) if line.strip()), "no message")
        if "Host key verification failed" in stderr:
            return LeafError(
                f"{self}: its host key is unknown or has changed. Ask its administrator for the correct key and add it "
                "to ~/.ssh/known_hosts."
            )
        if "Permission denied" in stderr:
            return LeafError(f"{self}: {last}. Add your public key to ~/.ssh/authorized_keys on the target.")
        if self.name is not None and status == 255:
            return ConnectionLostError(f"{self}: cannot be reached: {last}")
        return LeafError(f"{self}: {self.command[-1]} failed: {last}. The target requires Python 3.8 or newer.")

    def __str__(self) -> str:
        return self.name or "this machine"


def _agent(name: str) -> str:
    return files("leaf.runner.agent").joinpath(name).read_text(encoding="utf-8")


class Status(NamedTuple):
    """An experiment's state (queued, running, unknown or one of `plan.ENDED`) and a note."""

    state: str
    note: str = ""


class ProcessEngine:
    """The engines `local` and `ssh`."""

    def __init__(self, target: Local | Shell) -> None:
        self.target = target
        if isinstance(target, Local):
            self.host = Host()
            self.folder = str(LOCAL_FOLDER.absolute())
        else:
            self.host = Host(target.host, target.python, target.ssh_config)
            self.folder = target.folder

    def job(self) -> dict[str, Any]:
        """Return the job.json entries that depend on the engine."""
        if not isinstance(self.target, GpuTarget):
            return {}
        devices = [f"gpu-{number}" for number in self.target.gpus] or ["machine"]
        held = {"devices": devices, "devices_each": self.target.gpus_per_job}
        if isinstance(self.target, Local):  # reuse this Python and the project's DVC cache
            path = [*self.target.path, str(Path(sys.executable).parent)]
            cache = Path(output_of("dvc", "cache", "dir")).absolute()
            return {**held, "path": path, "cache": str(cache), "state": False}
        return held

    def rehearsal(self, experiments: int) -> str:  # noqa: ARG002
        """Return the scheduler request that `--dry-run` prints, or an empty string if there is no scheduler."""
        return ""

    def submit(self, record: Record, job: dict[str, Any]) -> str:
        """Start the job and return its location."""
        return str(self.host.call("start", **self._request(record), files=job_files(job))["folder"])

    def status(self, record: Record) -> list[Status]:
        """Return the state of each experiment, in order."""
        answer = self.host.call("states", **self._request(record))
        return [Status(**status) for status in answer["states"]]

    def log(self, record: Record, name: str, offset: int) -> tuple[str, int]:
        """Return the log of an experiment from byte `offset`, and the offset to continue from."""
        answer = self.host.call("log", **self._request(record), index=record.names.index(name), offset=offset)
        return answer["text"], answer["next"]

    def cancel(self, record: Record, names: list[str]) -> list[str]:
        """Stop experiments and all their processes; return the names of those that had not finished yet."""
        indices = [record.names.index(name) for name in names]
        ended = self.host.call("cancel", **self._request(record), indices=indices)["cancelled"]
        return [record.names[index] for index in ended]

    def _request(self, record: Record) -> dict[str, Any]:
        return {"folder": self.folder, "id": record.id, "experiments": len(record.experiments)}


def job_files(job: dict[str, Any]) -> dict[str, str]:
    """Return the text of each file in the job folder, by name."""
    return {"job.json": json.dumps(job, indent=1), "task.py": _agent("task.py")}


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


class CloudEngine:
    """The engine `skypilot`: one machine runs the experiments of a job in sequence.

    A spot machine is a managed job (`sky jobs launch`), which SkyPilot restarts after an interruption. Experiments
    whose results are on the git remote are skipped, and training resumes if `state_bucket` is set.
    """

    def __init__(self, target: SkyPilot) -> None:
        self.target = target

    def job(self) -> dict[str, Any]:
        return {"stream": True}

    def rehearsal(self, experiments: int) -> str:
        return yaml.safe_dump(task_yaml(self.target, "JOB", experiments, Path("JOB")), sort_keys=False)

    def submit(self, record: Record, job: dict[str, Any]) -> str:
        folder = CLOUD_FOLDER / record.id
        folder.mkdir(parents=True, mode=0o700)
        for name, text in job_files(job).items():
            (folder / name).write_text(text, encoding="utf-8")
        description = folder.with_suffix(".yaml")
        task = task_yaml(self.target, record.id, len(record.experiments), folder.absolute())
        description.write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
        self._sky(*launch_command(self.target, task["name"], description))
        return f"SkyPilot as {task['name']}"

    def status(self, record: Record) -> list[Status]:
        """Return `done` for experiments on the git remote, and `unknown` for others, whose state only SkyPilot has."""
        there = repository.at_remote(self.target.git_remote, record.revision)
        look = "sky jobs queue" if self.target.spot else f"sky queue leaf-{record.id}"
        return [Status("done") if name in there else Status("unknown", f"see `{look}`") for name in record.names]

    def log(self, record: Record, name: str, offset: int) -> tuple[str, int]:  # noqa: ARG002
        """Return SkyPilot's log, which covers all experiments of the job."""
        command = ["jobs", "logs", "--no-follow", "-n"] if self.target.spot else ["logs", "--no-follow"]
        # exit statuses 100 to 103 report the state of the job, not an error of `sky`
        text = self._sky(*command, f"leaf-{record.id}", accepted=(0, *range(100, 104)))
        return text[offset:], len(text)

    def cancel(self, record: Record, names: list[str]) -> list[str]:
        """Stop the machine. Individual experiments cannot be cancelled."""
        if len(names) != len(record.experiments):
            raise LeafError(f"{record.id}: SkyPilot cancels whole jobs only. Pass this job ID, not an experiment.")
        self._sky(*(["jobs", "cancel", "-y", "-n"] if self.target.spot else ["down", "-y"]), f"leaf-{record.id}")
        return names

    @staticmethod
    def _sky(*arguments: str, accepted: Collection[int] = (0,)) -> str:
        if shutil.which("sky") is None:
            raise LeafError("sky: not found. Install SkyPilot in a separate environment; see docs/remote.md.")
        return output_of("sky", *arguments, accepted=accepted)


def task_yaml(target: SkyPilot, identity: str, experiments: int, folder: Path) -> dict[str, Any]:
    """Return the task for `sky launch`. The job's values are in the mounted `folder`, not in the script."""
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
    """Return the arguments for `sky`. A spot machine uses a managed job, because SkyPilot restarts only those."""
    if target.spot:
        return ["jobs", "launch", "-y", "-d", "-n", name, str(description)]
    return ["launch", "-y", "-d", "-c", name, str(description)]


def engine_for(target: Target) -> ProcessEngine | CloudEngine:
    """Return the engine of a target. Its methods raise ConnectionLostError if the target is unreachable."""
    kinds: dict[str, Any] = {"slurm": SlurmEngine, "skypilot": CloudEngine}
    return kinds.get(target.engine, ProcessEngine)(target)
