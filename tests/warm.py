"""Stages and commands in forks of one process that has imported TensorFlow and DVC: that takes longer than a small run.

`Warm` starts that process and writes the programs `python`, `leaf` and `dvc` into a folder. Where that stands first on
PATH, a stage or a command of leaf or DVC runs in a fork, with its own folder, environment, streams, signals and exit
status, and with the leaf of its PYTHONPATH. Everything else runs in the real Python, and so does what has COLD in its
environment.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

IMPORTED = ("keras", "pandas", "scipy.stats", "sklearn.linear_model", "sklearn.decomposition", "imblearn.over_sampling")
IMPORTED += ("cv2", "PIL.Image", "dvclive", "filelock", "jinja2", "pydantic", "tqdm", "typer", "yaml")
# Of DVC all but pygit2, which asks for HOME as it is imported.
IMPORTED += ("dvc.cli.parser", "dvc.repo", "dvc.repo.experiments.queue.celery", "dvc.repo.experiments.queue.tempdir")
IMPORTED += ("dvc.repo.experiments.show", "dvc.repo.plots", "dvc.render.convert", "dvc.repo.metrics.diff")
PROGRAM = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys

folder, name = os.path.split(sys.argv[0])
command = sys.argv[1:] if name == "python" else ["{Path(sys.executable).parent}/" + name, *sys.argv[1:]]
warm = name != "python" or command[:1] == ["-m"] and command[1].startswith("stages.")
if not warm or "COLD" in os.environ or os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    os.execv("{sys.executable}", ["{sys.executable}", *command])
asked = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asked.connect(folder + "/socket")
socket.send_fds(asked, [json.dumps([os.getcwd(), dict(os.environ), command]).encode()], [0, 1, 2])
process = int(asked.recv(9) or sys.exit("no fork"))
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: os.kill(process, number))
status = int(asked.recv(9))
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


class Warm:
    """The running process; `folder` holds the programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("python", "leaf", "dvc"):
            (folder / name).write_text(PROGRAM, encoding="utf-8")
            (folder / name).chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["OPENBLAS_NUM_THREADS"] = "1"  # no thread but the one that forks
        self.process = subprocess.Popen([sys.executable, __file__, folder], env=environment, stdin=subprocess.PIPE)
        while not (folder / "socket").exists():
            assert self.process.poll() is None
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.communicate()


def serve(folder: Path) -> None:
    """Import, then fork for each that asks, until standard input ends: so does who started it."""
    for name in IMPORTED:
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1  # a fork keeps none but the one that forks
    gc.collect()
    gc.freeze()  # collected by a fork, the memory would be copied
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(folder / "new"))
        listening.listen()
        (folder / "new").rename(folder / "socket")
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            asked, _ = listening.accept()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:  # those that have ended since
                    pass
            with asked:
                if os.fork() == 0:
                    listening.close()
                    attend(asked)
                    return


def attend(asked: socket.socket) -> None:
    """Run what is asked for in a fork, where this returns in the end; tell the fork's process number and status."""
    message, streams, *_ = socket.recv_fds(asked, 2**20, 3)
    running = os.fork()
    if running == 0:
        asked.close()
        run(streams, *json.loads(message))
        return
    for stream in streams:
        os.close(stream)
    asked.send(str(running).encode())
    ended = os.pidfd_open(running)
    if ended not in select.select([ended, asked], [], [])[0]:
        os.kill(running, signal.SIGKILL)  # who asked was killed
    status = os.waitstatus_to_exitcode(os.waitpid(running, 0)[1])
    asked.send(str(status).encode(), socket.MSG_NOSIGNAL)
    os._exit(0)


def run(streams: list[int], folder: str, environment: dict[str, str], command: list[str]) -> None:
    """What `python COMMAND` does."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    paths = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    if command[0] == "-m":
        sys.path[:1] = [folder, *paths]
        sys.argv = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[:1] = [str(Path(command[0]).parent), *paths]
        sys.argv = command
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
