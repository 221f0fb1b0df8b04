"""Handle one request on the target: start or cancel experiments, or return their states or logs. Standard library only.

`leaf.runner.ssh.Host` pipes this file, together with a request, to `python3 -` on the target.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ANSWER = "leaf-answer:"  # precedes the response, because a login shell may print a greeting first
LOG_PART = 1 << 20  # maximum number of log bytes per response
FINAL = ("done", "failed", "cancelled", "stopped")  # final states that task.py writes
GRACE = 10  # seconds between SIGTERM and SIGKILL; also the time allowed for a job to start


class TransientError(Exception):
    """Raised for a temporary failure on the target, for example while the Slurm controller restarts."""


def job_folder(request: dict[str, Any]) -> Path:
    return Path(request["folder"]).expanduser().absolute() / "jobs" / request["id"]


def put(folder: Path, request: dict[str, Any]) -> None:
    """Create the job's folder and files, readable only by the owner."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, text in request["files"].items():
        (folder / name).write_text(text, encoding="utf-8")
    for index in range(request["experiments"]):
        (folder / str(index)).mkdir(exist_ok=True)


def start(request: dict[str, Any]) -> dict[str, Any]:
    """Start each experiment as a process that outlives this connection. Repeating a request has no effect."""
    folder = job_folder(request)
    if not (folder / "started").exists():
        put(folder, request)
        for index in range(request["experiments"]):
            command = [sys.executable, str(folder / "task.py"), str(folder), str(index)]
            none = subprocess.DEVNULL
            subprocess.Popen(command, start_new_session=True, stdin=none, stdout=none, stderr=none)
        (folder / "started").touch()
    return {"folder": str(folder)}


def sbatch(request: dict[str, Any]) -> dict[str, Any]:
    """Submit the job to Slurm as one array; return its folder and Slurm job ID."""
    folder = job_folder(request)
    number = folder / "slurm"
    if not number.exists():
        put(folder, request)
        script = folder / "task.py"
        script.write_text(f"#!{sys.executable}\n{script.read_text(encoding='utf-8')}", encoding="utf-8")
        options = [*request["options"], f"--output={str(folder).replace('%', '%%')}/%a/slurm.log"]
        command = ["sbatch", "--parsable", *options, str(script), str(folder)]
        answer = subprocess.run(command, capture_output=True, check=False)
        if answer.returncode:
            shutil.rmtree(folder)
            return {"error": "sbatch: " + answer.stderr.decode("utf-8", "replace").strip()}
        number.write_text(answer.stdout.decode().partition(";")[0].strip())
    return {"folder": str(folder), "slurm": number.read_text()}


def states(request: dict[str, Any]) -> dict[str, Any]:
    """Return each experiment's {"state": queued|running|done|failed|cancelled|stopped|lost, "note": text}."""
    folder = job_folder(request)
    if not folder.is_dir():
        gone = {"state": "lost", "note": "not on the target. Submit the experiment again."}
        return {"states": [gone] * request["experiments"]}
    queue = slurm_queue(folder)  # queried before the exit files are read, in case a job ends in between
    return {"states": [state_of(folder / str(index), index, queue) for index in range(request["experiments"])]}


def state_of(own: Path, index: int, queue: dict[int, str] | None) -> dict[str, str]:
    if (own / "exit").exists():
        try:
            ended = json.loads(read(own / "exit"))
            if ended["state"] not in FINAL or not isinstance(ended["reason"], str):
                raise ValueError
            return {"state": ended["state"], "note": ended["reason"]}
        except (ValueError, KeyError, TypeError, RecursionError):  # caused by a full disk or a machine crash
            return {
                "state": "failed",
                "note": f"{own / 'exit'}: damaged. Read the log and submit the experiment again.",
            }
    step = read(own / "step")
    if queue is not None and index in queue:
        return {"state": "queued" if queue[index] == "PENDING" else "running", "note": step or queue[index].lower()}
    if alive(own):
        return {"state": "queued" if step.startswith("waiting") else "running", "note": step}
    if (own / "cancelled").exists():
        return {"state": "cancelled", "note": ""}
    if step in ("", "requeued") and 0 <= time.time() - own.stat().st_mtime < GRACE:
        return {"state": "queued", "note": step or "starting"}
    shutil.rmtree(own / "clone", ignore_errors=True)
    where = f"in step {step!r}" if step else "at the start"
    return {"state": "lost", "note": f"ended unexpectedly {where}. Submit the experiment again."}


def slurm_queue(folder: Path) -> dict[int, str] | None:
    """Return the Slurm state of each queued or running array index, or None if this is not a Slurm job."""
    number = read(folder / "slurm")
    if not number:
        return None
    answer = subprocess.run(["squeue", "-h", "-r", "-j", number, "-o", "%K %T"], capture_output=True, check=False)
    if answer.returncode and b"Invalid job id" not in answer.stderr:  # Slurm's message for a job that ended long ago
        raise TransientError("squeue: " + answer.stderr.decode("utf-8", "replace").strip())
    rows = [line.split() for line in answer.stdout.decode("utf-8", "replace").splitlines()]
    return {int(row[0]): row[1] for row in rows if len(row) == 2 and row[0].isdigit()}


def log(request: dict[str, Any]) -> dict[str, Any]:
    """Return the log from byte `offset`, and the offset to continue from."""
    try:
        with (job_folder(request) / str(request["index"]) / "log").open("rb") as file:
            file.seek(request["offset"])
            part = file.read(LOG_PART)
    except FileNotFoundError:
        part = b""
    return {"text": part.decode("utf-8", "replace"), "next": request["offset"] + len(part)}


def cancel(request: dict[str, Any]) -> dict[str, Any]:
    """Stop experiments and all their processes; return the indices of those that had not finished yet."""
    folder = job_folder(request)
    chosen = [index for index in request["indices"] if not (folder / str(index) / "exit").exists()]
    for index in chosen:
        (folder / str(index) / "cancelled").touch()
    number = read(folder / "slurm")
    if number:
        if chosen:
            subprocess.run(["scancel", *(f"{number}_{index}" for index in chosen)], check=False)
        return {"cancelled": chosen}
    deadline = time.monotonic() + GRACE
    for index in chosen:
        send(folder / str(index), signal.SIGTERM)
    while time.monotonic() < deadline and any(alive(folder / str(index)) for index in chosen):
        time.sleep(0.1)
    for index in chosen:
        send(folder / str(index), signal.SIGKILL)
        shutil.rmtree(folder / str(index) / "clone", ignore_errors=True)
    return {"cancelled": chosen}


def send(own: Path, number: int) -> None:
    """Send a signal to the experiment's process group, which may outlive the process that started it."""
    try:
        if alive(own):
            os.killpg(int(read(own / "pid")), number)
    except (ProcessLookupError, ValueError):
        pass


def alive(own: Path) -> bool:
    """Return whether any process of the experiment is alive. Each holds a lock on the file `pid`, its stdin."""
    try:
        with (own / "pid").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def facts(request: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that `leaf doctor` checks: program paths, free disk space and the output of commands."""
    folder = Path(request["folder"]).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([*(str(Path(name).expanduser()) for name in request["path"]), os.environ.get("PATH", "")])
    environment = {**os.environ, **request["environment"], "PATH": path, "GIT_TERMINAL_PROMPT": "0"}
    environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes")
    return {
        "folder": str(folder),
        "python": sys.version.split()[0],
        "free": shutil.disk_usage(folder).free,
        "found": {name: shutil.which(name, path=path) for name in request["programs"]},
        "answers": {name: run(argv, environment) for name, argv in request["commands"].items()},
    }


def run(argv: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a program and return its exit status, stdout and last line of stderr."""
    try:
        answer = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return {"status": 127, "output": "", "complaint": str(error)}
    complaint = answer.stderr.decode("utf-8", "replace").strip().splitlines()
    output = answer.stdout.decode("utf-8", "replace").strip()
    return {"status": answer.returncode, "output": output, "complaint": complaint[-1] if complaint else ""}


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def trainings(request: dict[str, Any]) -> dict[str, Any]:
    """Return the time and memory of earlier training runs on this target, as cached by the `train` stage."""
    path = Path(request["folder"]).expanduser() / "state" / "known" / "epochs.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        known = {}
    return {"trainings": known if isinstance(known, dict) else {}}


VERBS = {verb.__name__: verb for verb in (trainings, start, sbatch, states, log, cancel, facts)}


def answer_to(request: dict[str, Any]) -> None:
    """Handle a request and print the response or the error as one line of JSON."""
    try:
        answer = VERBS[request["verb"]](request)
    except TransientError as error:
        answer = {"unreachable": str(error)}
    except Exception as error:  # noqa: BLE001 (otherwise only a traceback would reach the caller)
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(ANSWER + json.dumps(answer), flush=True)
