"""Run stages and commands in forks of one process, because importing TensorFlow and DVC takes longer than a small run.

`Warm` starts a process that runs this file, and writes the programs `python`, `leaf` and `dvc` to a folder. If that
folder is first on PATH, stages and the commands leaf and dvc run in a fork. Each fork has its own working directory,
environment, streams, signals and exit status, and imports leaf from its PYTHONPATH. All other Python programs, and any
program with COLD in its environment, run in a new Python process.
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

IMPORTED = ("keras", "pandas", "scipy.stats", "sklearn.linear_model", "sklearn.decomposition")
IMPORTED += ("cv2", "PIL.Image", "dvclive", "filelock", "jinja2", "pydantic", "tqdm", "typer", "yaml")
# All of DVC except pygit2, which reads HOME on import.
IMPORTED += ("dvc.cli.parser", "dvc.repo", "dvc.repo.experiments.queue.celery", "dvc.repo.experiments.queue.tempdir")
IMPORTED += ("dvc.repo.experiments.show", "dvc.repo.plots", "dvc.render.convert", "dvc.repo.metrics.diff")
PROGRAM = f"""#!{sys.executable} -IS
import json, os, signal, socket, sys

folder, name = os.path.split(sys.argv[0])
command = sys.argv[1:] if name == "python" else ["{Path(sys.executable).parent}/" + name, *sys.argv[1:]]
warm = name != "python" or command[:1] == ["-m"] and command[1].startswith("stages.")
if not warm or "COLD" in os.environ or os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
    os.execv("{sys.executable}", ["{sys.executable}", *command])
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.connect(folder + "/socket")
socket.send_fds(server, [json.dumps([os.getcwd(), dict(os.environ), command]).encode()], [0, 1, 2])
process = int(server.recv(9) or sys.exit("no fork"))
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: os.kill(process, number))
status = int(server.recv(9))
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


class Warm:
    """The running server process; `folder` contains the programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("python", "leaf", "dvc"):
            (folder / name).write_text(PROGRAM, encoding="utf-8")
            (folder / name).chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["OPENBLAS_NUM_THREADS"] = "1"  # threads do not survive a fork
        self.process = subprocess.Popen([sys.executable, __file__, folder], env=environment, stdin=subprocess.PIPE)
        while not (folder / "socket").exists():
            assert self.process.poll() is None
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.communicate()


def serve(folder: Path) -> None:
    """Import the modules, then fork for each request until stdin is closed because the parent exited."""
    for name in IMPORTED:
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1  # threads do not survive a fork
    gc.collect()
    gc.freeze()  # garbage collection in a fork would copy memory pages
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(folder / "new"))
        listening.listen()
        (folder / "new").rename(folder / "socket")
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            client, _ = listening.accept()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:  # reap finished forks
                    pass
            with client:
                if os.fork() == 0:
                    listening.close()
                    handle(client)
                    return


def handle(client: socket.socket) -> None:
    """Run the requested command in a fork and send its process ID and exit status. Return only in the fork."""
    message, streams, *_ = socket.recv_fds(client, 2**20, 3)
    pid = os.fork()
    if pid == 0:
        client.close()
        run(streams, *json.loads(message))
        return
    for stream in streams:
        os.close(stream)
    client.send(str(pid).encode())
    exited = os.pidfd_open(pid)
    if exited not in select.select([exited, client], [], [])[0]:
        os.kill(pid, signal.SIGKILL)  # the client was killed
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    client.send(str(status).encode(), socket.MSG_NOSIGNAL)
    os._exit(0)


def run(streams: list[int], folder: str, environment: dict[str, str], command: list[str]) -> None:
    """Run `python COMMAND` in this process."""
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
