"""Run one experiment of a job on the target: clone, create the environment, `dvc exp run`, push. Standard library only.

    python3 task.py FOLDER [INDEX]      FOLDER contains job.json; Slurm sets INDEX as SLURM_ARRAY_TASK_ID

Parameter values are passed to git and dvc as separate arguments, without a shell. Rerunning is safe: an experiment
whose results are already on the git remote is skipped.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

GRACE = 60  # seconds that a stopped stage has to write its checkpoint
LOCK_WAIT = 120  # seconds to wait for an earlier process of this experiment to end, for example after a node failure


class TaskError(Exception):
    """Raised if the experiment fails; the message names the step and the reason."""


class Task:
    """Experiment `index` of the job in `folder`."""

    def __init__(self, folder: Path, index: int) -> None:
        self.own = folder / str(index)
        self.job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        self.experiment = self.job["experiments"][index]
        self.root = folder.parent.parent
        self.clone = self.own / "clone"
        revision = self.job["revision"]
        self.reference = f"refs/exps/{revision[:2]}/{revision[2:]}/{self.experiment['name']}"
        self.environment = self._environment()
        self.stopped = False
        self.stdin: IO[str] | int = subprocess.DEVNULL
        self.held: list[object] = []  # open files that hold locks

    def _environment(self) -> dict[str, str]:
        environment = {"GIT_SSH_COMMAND": "ssh -o BatchMode=yes -o StrictHostKeyChecking=yes", **os.environ}
        for role in ("AUTHOR", "COMMITTER"):
            for key, value in self.job["author"].items():
                environment[f"GIT_{role}_{key.upper()}"] = value
        environment.update({"GIT_TERMINAL_PROMPT": "0", "PYTHONUNBUFFERED": "1"})
        if self.job["state"]:
            environment["LEAF_STATE"] = str(self.root / "state")
        environment.update(self.job["environment"])
        path = [str(Path(folder).expanduser()) for folder in self.job["path"]]
        environment["PATH"] = os.pathsep.join([*path, environment.get("PATH", os.defpath)])
        return environment

    def say(self, text: str) -> None:
        print(f"[{time.strftime('%Y-%m-%d %H:%M:%S')}] {text}", flush=True)

    def step(self, name: str) -> None:
        write(self.own / "step", name)
        self.say(name)

    def call(self, *argv: str, cwd: Path | None = None) -> None:
        """Run a program and write its output to the log. Raises TaskError if its exit status is not 0."""
        if self.stopped:
            raise TaskError("stopped")
        with subprocess.Popen(argv, cwd=cwd, env=self.environment, stdin=self.stdin) as process:
            if self.stopped:  # the signal arrived before this child started
                process.terminate()
            status = process.wait()
        if status or self.stopped:
            raise TaskError(f"{' '.join(argv[:3])}: exit status {status}; `leaf logs` shows its output")

    def ask(self, *argv: str) -> str:
        """Return the output of a program, or an empty string if it fails."""
        answer = subprocess.run(
            argv, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
        )
        return answer.stdout.decode("utf-8", "replace").strip() if answer.returncode == 0 else ""

    def stop(self, *_: object) -> None:
        """Forward SIGTERM to the process group, so that the stage writes its checkpoint and exits."""
        self.stopped = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)

    def run(self) -> None:
        """Run all steps. Raises TaskError."""
        if self.done_before():
            return
        self.hold_device()
        if self.done_before():  # an identical job finished while this one waited
            return
        try:
            self.make()
        except TaskError:
            if not lost_race(self.own / "log"):
                raise
            self.say("conflict with another job in DVC's run cache: trying again")
            self.make()
        self.step("push")
        if self.job["remote"]:
            self.call("dvc", "push", "-r", self.job["remote"], cwd=self.clone)
        self.call("git", "push", "origin", f"{self.reference}:{self.reference}", cwd=self.clone)
        if not self.at_origin():
            raise TaskError(f"git push: {self.reference} did not reach the remote")

    def make(self) -> None:
        """Run the experiment in a temporary clone."""
        self.step("clone")
        self.make_clone()
        self.step("environment")
        self.make_environment()
        self.step("run")
        host = self.job["remote_host"]
        if host and (refused := host_key_refused(host, self.environment)):
            raise TaskError(refused)  # DVC's own ssh client (asyncssh) accepts any host key
        pull = ["--pull"] if self.job["remote"] else []
        settings = [part for setting in self.experiment["set"] for part in ("-S", setting)]
        name = self.experiment["name"]
        self.call("dvc", "exp", "run", *pull, "--allow-missing", *settings, "-n", name, cwd=self.clone)

    def done_before(self) -> bool:
        """Return whether the git remote already has the results, from an earlier attempt or an identical job."""
        if found := self.at_origin():
            self.say("skipped: the remote already has the results")
        return found

    def at_origin(self) -> bool:
        return bool(self.ask("git", "ls-remote", "--", self.job["origin"], self.reference))

    def make_clone(self) -> None:
        """Clone the job's commit, replacing any clone left by an earlier attempt."""
        shutil.rmtree(self.clone, ignore_errors=True)
        self.call("git", "clone", "--quiet", "--no-checkout", "--", self.job["origin"], str(self.clone))
        revision = self.job["revision"]
        self.call("git", "fetch", "--quiet", "origin", f"refs/leaf/{revision}", cwd=self.clone)
        self.call("git", "-c", "advice.detachedHead=false", "checkout", "--detach", revision, cwd=self.clone)

    def make_environment(self) -> None:
        """Create the environment with `setup`, unless an earlier job with the same `setup` and requirements did."""
        setup = self.job["setup"]
        if setup:
            home = self.root / "environments" / environment_key(setup, self.clone)
            home.mkdir(parents=True, exist_ok=True)
            self.environment["LEAF_ENVIRONMENT"] = str(home)
            self.environment["PATH"] = f"{home / 'bin'}{os.pathsep}{self.environment['PATH']}"
            with (home / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not (home / "ready").exists():
                    self.call("sh", "-e", "-c", setup, cwd=self.clone)
                    write(home / "ready", "")
        if not shutil.which("dvc", path=self.environment["PATH"]):
            raise TaskError("dvc: not found on the target. Add `setup` or `path` to the target in runner.yaml.")
        cache = self.job["cache"] or str(self.root / "cache")
        # Keep one copy of the data on the target; clones link to it if the file system supports it.
        for key, value in (("cache.dir", cache), ("cache.type", "reflink,hardlink,copy")):
            self.call("dvc", "config", "--local", key, value, cwd=self.clone)

    def hold_device(self) -> None:
        """Wait for free GPUs, lock them and hide all others. Hold no lock while waiting, to avoid deadlocks.

        The lock file contains the path of the experiment's folder, so that `free_device` can check whether children of
        a killed task are still running.
        """
        names, wanted = self.job["devices"], self.job["devices_each"]
        if not names or "SLURM_JOB_ID" in os.environ:  # Slurm assigns the GPUs
            return
        self.step(f"waiting for {wanted} of {', '.join(names)}" if wanted > 1 else "waiting for " + " or ".join(names))
        locks = self.root / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        while not self.stopped:
            held: dict[str, IO[str]] = {}
            for name in names:
                if len(held) < wanted and (lock := free_device(locks / name, self.own)):
                    held[name] = lock
            if len(held) == wanted:
                for lock in held.values():
                    replace_text(lock, str(self.own))
                self.held += held.values()
                if names[0].startswith("gpu-"):
                    self.environment["CUDA_VISIBLE_DEVICES"] = ",".join(name[len("gpu-") :] for name in held)
                return
            for lock in held.values():
                lock.close()
            time.sleep(0.3)
        raise TaskError("stopped")

    def requeue(self) -> bool:
        """Requeue this experiment in Slurm; return False if it was canceled, reached the limit, or Slurm refuses."""
        if "SLURM_JOB_ID" not in os.environ or (self.own / "cancelled").exists():
            return False
        # SLURM_JOB_ID cannot be used: for the last element of an array, it is the ID of the whole array.
        identity = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        if self.ask("squeue", "-h", "-j", identity, "-o", "%T") != "RUNNING":
            return False
        counter = self.own / "requeues"
        tries = int(counter.read_text()) + 1 if counter.exists() else 1
        if tries > self.job["requeues"]:
            self.say(f"not requeued: the requeue limit ({tries - 1}) has been reached")
            return False
        write(counter, str(tries))
        write(self.own / "step", "requeued")
        self.say(f"requeued, {tries}")
        if subprocess.run(["scontrol", "requeue", identity], env=self.environment, check=False).returncode:
            return False
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(LOCK_WAIT)  # wait for Slurm to end this process; if it exited, Slurm could report success
        return True

    def end(self, state: str, reason: str) -> int:
        """Remove the clone, write the final state and return the exit status."""
        shutil.rmtree(self.clone, ignore_errors=True)
        self.say(f"{state}{': ' if reason else ''}{reason}")
        write(self.own / "exit", json.dumps({"state": state, "reason": reason}))
        return 0 if state == "done" else 1


def lost_race(log: Path) -> bool:
    """Return whether DVC 3.67 failed because two jobs wrote the same run-cache entry at the same time.

    DVC mistakes the other job's partial file for a damaged one and removes it. Return False on SkyPilot, which has no
    log file.
    """
    end = log.read_bytes()[-2000:] if log.exists() else b""
    return re.search(rb"No such file or directory: '[^']*/runs/[^']*\.tmp'", end) is not None


def main(argv: list[str]) -> int:
    """Run the experiment; return 0 if its results are on the git remote."""
    folder = Path(argv[0])
    task = Task(folder, int(argv[1] if len(argv) > 1 else os.environ["SLURM_ARRAY_TASK_ID"]))
    task.own.mkdir(exist_ok=True)
    if not task.job["stream"]:
        with (task.own / "log").open("ab") as log:  # child processes write to the log too
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
    if os.getpgrp() != os.getpid():
        os.setsid()  # one process group for the whole experiment
    signal.signal(signal.SIGTERM, task.stop)
    if not hold_pid(task):
        task.say("another process is running this experiment")
        return 1
    start_watchdog()
    if (task.own / "exit").exists():
        return 0
    if (task.own / "cancelled").exists():
        return task.end("cancelled", "before it started")
    task.say(f"experiment {task.experiment['name']} on {os.environ.get('SLURMD_NODENAME', os.uname().nodename)}")
    try:
        task.run()
    except (TaskError, OSError) as error:
        if not task.stopped:
            return task.end("failed", str(error))
        await_group(os.getpgrp())
        if task.requeue():
            return 0
        if (task.own / "cancelled").exists():
            return task.end("cancelled", "")
        return task.end(
            "stopped", "stopped by SIGTERM. Submit the experiment again to resume after the last finished epoch."
        )
    return task.end("done", "")


def hold_pid(task: Task) -> bool:
    """Lock the file `pid`, which children inherit as stdin, and write the process ID. Return False if it is locked."""
    deadline = time.monotonic() + LOCK_WAIT
    while not (held := locked(task.own / "pid")):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.3)
    replace_text(held, str(os.getpid()))
    task.stdin = held  # positioned at the end of the file, so that children get an empty stdin
    return True


def start_watchdog() -> None:
    """Fork a process that stops the children of this process if it is killed.

    ssh, and Slurm without cgroups, would leave them running. Until they have ended, the watchdog keeps the lock on
    `pid`, so the experiment counts as running and keeps its GPUs.
    """
    parent_ends, alive = os.pipe()
    group = os.getpgrp()
    if os.fork():
        os.close(parent_ends)
        return  # `alive` stays open until this process ends; children do not inherit it
    os.close(alive)
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.read(parent_ends, 1)
    if group_members(group):
        os.killpg(group, signal.SIGTERM)
        await_group(group)
    os._exit(0)


def locked(path: Path) -> IO[str] | None:
    """Open and lock a file. Return None if another process has locked it."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def free_device(path: Path, own: Path) -> IO[str] | None:
    """Lock a device. Return None if an experiment or its remaining children use it."""
    lock = locked(path)
    if lock is None:
        return None
    lock.seek(0)
    holder = Path(lock.read() or own)
    if holder != own and (holder / "pid").exists() and not (holder / "exit").exists():
        pid = locked(holder / "pid")
        if pid is None:
            lock.close()
            return None
        pid.close()
    return lock


def replace_text(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def await_group(group: int) -> None:
    """Wait for the other processes of a group to end; kill them after GRACE seconds."""
    deadline = time.monotonic() + GRACE
    while others := group_members(group):
        if time.monotonic() > deadline:
            for pid in others:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def group_members(group: int) -> list[int]:
    """Return the IDs of the other live processes in the group, or an empty list without /proc (macOS)."""
    members = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, number = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(path.parent.name)
        if int(number) == group and pid != os.getpid() and state != "Z":
            members.append(pid)
    return members


def host_key_refused(host: str, environment: dict[str, str]) -> str:
    """Return an error message if OpenSSH rejects the key of `host`; return "" if not, or if `host` is unreachable."""
    options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10"]
    command = ["ssh", *options, "--", host, "true"]
    answer = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if b"Host key verification failed" not in answer.stderr:
        return ""
    return f"DVC remote: the host key of {host} is unknown or has changed. Add the correct one to ~/.ssh/known_hosts."


def environment_key(setup: str, clone: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of `setup` and the requirements files."""
    digest = hashlib.sha256(setup.encode())
    for path in sorted([*clone.glob("requirements*.txt"), *clone.glob("pyproject.toml")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def write(path: Path, text: str) -> None:
    """Write a small file atomically."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
