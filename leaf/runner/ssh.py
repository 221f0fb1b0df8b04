"""The engines `local` and `ssh`: start detached processes that outlive the connection and lock their GPUs."""

import json
import shlex
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from leaf.errors import LeafError, output_of
from leaf.runner.agent.request_handler import ANSWER
from leaf.runner.config import GpuTarget, Local, Shell
from leaf.runner.plan import Record

LOCAL_FOLDER = Path(".dvc") / "tmp" / "leaf" / "target"
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

    The command line is always `PYTHON -`, and the request is data on stdin, so no shell parses user input.
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
