"""Answer one request on the target: start experiments, tell their states and logs, cancel. Standard library alone.

`leaf.runner.connection` sends this file and a request, as a program on the standard input of the target's `python3 -`.
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

ANSWER = "leaf-answer:"  # a login may print a greeting before ours
LOG_PART = 1 << 20  # bytes of a log in one answer
LEAVE = 10  # seconds that a cancelled experiment has before it is killed


class TransientError(Exception):
    """Something there does not answer now and may later, as a Slurm controller that starts anew."""


def job_folder(request: dict[str, Any]) -> Path:
    return Path(request["folder"]).expanduser().absolute() / "jobs" / request["id"]


def put(request: dict[str, Any]) -> Path:
    """Make the job's folder with its files, readable by its owner alone."""
    folder = job_folder(request)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, text in request["files"].items():
        (folder / name).write_text(text, encoding="utf-8")
    for index in range(request["experiments"]):
        (folder / str(index)).mkdir(exist_ok=True)
    return folder


def start(request: dict[str, Any]) -> dict[str, Any]:
    """Start every experiment as a process of its own that outlives this connection; once, however often it is asked."""
    folder = job_folder(request)
    if not (folder / "started").exists():
        put(request)
        for index in range(request["experiments"]):
            subprocess.Popen(
                [sys.executable, str(folder / "task.py"), str(folder), str(index)],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        (folder / "started").touch()
    return {"folder": str(folder)}


def sbatch(request: dict[str, Any]) -> dict[str, Any]:
    """Hand the job to Slurm as one array; the answer has its number."""
    folder = job_folder(request)
    number = folder / "slurm"
    if not number.exists():
        put(request)
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
    """For each experiment: {"state": queued|running|done|failed|cancelled|stopped|lost, "note": text}."""
    folder = job_folder(request)
    if not folder.is_dir():
        gone = {"state": "lost", "note": "not on the target; submit it again"}
        return {"states": [gone] * request["experiments"]}
    queue = slurm_queue(folder)  # before the exit files: a job that ends in between is seen as ended
    return {"states": [state_of(folder / str(index), index, queue) for index in range(request["experiments"])]}


def state_of(own: Path, index: int, queue: dict[int, str] | None) -> dict[str, str]:
    if (own / "exit").exists():
        ended = json.loads(read(own / "exit"))
        return {"state": ended["state"], "note": ended["reason"]}
    step = read(own / "step")
    if queue is not None and index in queue:
        return {"state": "queued" if queue[index] == "PENDING" else "running", "note": step or queue[index].lower()}
    if queue is None and alive(own):
        return {"state": "queued" if step.startswith("waiting") else "running", "note": step}
    if (own / "cancelled").exists():
        return {"state": "cancelled", "note": ""}
    if step in ("", "requeued") and time.time() - own.stat().st_mtime < LEAVE:
        return {"state": "queued", "note": step or "starting"}
    return {"state": "lost", "note": f"ended without a word at: {step or 'the start'}; submit it again"}


def slurm_queue(folder: Path) -> dict[int, str] | None:
    """Array index to Slurm's state, for what is queued or runs; None where the job is not Slurm's."""
    number = read(folder / "slurm")
    if not number:
        return None
    answer = subprocess.run(["squeue", "-h", "-r", "-j", number, "-o", "%K %T"], capture_output=True, check=False)
    if answer.returncode and b"Invalid job id" not in answer.stderr:  # what Slurm says of a job that ended long ago
        raise TransientError("squeue: " + answer.stderr.decode("utf-8", "replace").strip())
    rows = [line.split() for line in answer.stdout.decode().splitlines()]
    return {int(index): state for index, state in rows}


def log(request: dict[str, Any]) -> dict[str, Any]:
    """The part of an experiment's log from byte `offset`, and where the next part begins."""
    try:
        with (job_folder(request) / str(request["index"]) / "log").open("rb") as file:
            file.seek(request["offset"])
            part = file.read(LOG_PART)
    except FileNotFoundError:
        part = b""
    return {"text": part.decode("utf-8", "replace"), "next": request["offset"] + len(part)}


def cancel(request: dict[str, Any]) -> dict[str, Any]:
    """End experiments with every process they started; those that have ended stay as they are."""
    folder = job_folder(request)
    chosen = [index for index in request["indices"] if not (folder / str(index) / "exit").exists()]
    for index in chosen:
        (folder / str(index) / "cancelled").touch()
    number = read(folder / "slurm")
    if number:
        if chosen:
            subprocess.run(["scancel", *(f"{number}_{index}" for index in chosen)], check=False)
        return {"cancelled": chosen}
    deadline = time.monotonic() + LEAVE
    for index in chosen:
        send(folder / str(index), signal.SIGTERM)
    while time.monotonic() < deadline and any(alive(folder / str(index)) for index in chosen):
        time.sleep(0.1)
    for index in chosen:
        send(folder / str(index), signal.SIGKILL)
    return {"cancelled": chosen}


def send(own: Path, number: int) -> None:
    """SIGTERM goes to the experiment's process, which ends its group in order; SIGKILL to the whole group."""
    if alive(own):
        pid = int(read(own / "pid"))
        (os.killpg if number == signal.SIGKILL else os.kill)(pid, number)


def alive(own: Path) -> bool:
    """Whether the experiment's process lives: it holds a lock on its `pid` file, so a reused number cannot mislead."""
    try:
        with (own / "pid").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def facts(request: dict[str, Any]) -> dict[str, Any]:
    """What `leaf doctor` asks of a target: programs, disk, and whether it reaches the origin."""
    folder = Path(request["folder"]).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([*(str(Path(name).expanduser()) for name in request["path"]), os.environ.get("PATH", "")])
    environment = {**os.environ, **request["environment"], "PATH": path, "GIT_TERMINAL_PROMPT": "0"}
    environment.setdefault("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes")
    answers = {name: run(argv, environment) for name, argv in request["commands"].items()}
    return {
        "folder": str(folder),
        "python": sys.version.split()[0],
        "free": shutil.disk_usage(folder).free,
        "found": {name: shutil.which(name, path=path) for name in request["programs"]},
        "answers": answers,
    }


def run(argv: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Exit status, output and the last line of complaint of one program."""
    try:
        answer = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=120,
            check=False,
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
    """What trainings on this target took, as the stage train remembers it."""
    path = Path(request["folder"]).expanduser() / "state" / "known" / "epochs.json"
    return {"trainings": json.loads(read(path) or "{}")}


VERBS = {verb.__name__: verb for verb in (trainings, start, sbatch, states, log, cancel, facts)}


def answer_to(request: dict[str, Any]) -> None:
    """Print the answer to a request, or what stopped it, as one line of JSON."""
    try:
        answer = VERBS[request["verb"]](request)
    except TransientError as error:
        answer = {"unreachable": str(error)}
    except OSError as error:
        answer = {"error": str(error)}
    print(ANSWER + json.dumps(answer), flush=True)
