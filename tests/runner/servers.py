"""Start an sshd with its own keys in a temporary folder."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Sshd:
    """An OpenSSH server and a client configuration with the host `box`; `inside` prefixes the server's command."""

    folder: Path
    port: int
    program: str
    address: str = "127.0.0.1"
    inside: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def config(self) -> Path:
        return self.folder / "client"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [*self.inside, self.program, "-D", "-e", "-f", str(self.folder / "server")],
            stderr=(self.folder / "log").open("ab"),
        )
        try:
            await_port(self.port, address=self.address)
        except AssertionError:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and close all its connections; detached processes keep running."""
        if self.process is None:
            return
        for pid in children(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.process = None


def start_sshd(folder: Path, address: str = "127.0.0.1", inside: Sequence[str] = ()) -> Sshd:
    """Write keys and settings to `folder` and start the server. Raises FileNotFoundError if sshd is not installed."""
    program = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise FileNotFoundError("sshd")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(command, check=True)
    port = free_port()
    (folder / "server").write_text(
        f"ListenAddress {address}\nPort {port}\nHostKey {folder / 'host'}\nPidFile none\n"
        f"AuthorizedKeysFile {folder / 'user.pub'}\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
    )
    key = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[{address}]:{port} {key[0]} {key[1]}\n")
    (folder / "client").write_text(
        f"Host box\n  HostName {address}\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {folder / 'user'}\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder / 'known_hosts'}\n"
    )
    server = Sshd(folder, port, program, address, inside)
    server.start()
    return server


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int, seconds: float = 10, address: str = "127.0.0.1") -> None:
    await_true(lambda: _open(address, port), seconds)


def await_true(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until the condition holds. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.05)


def children(pid: int) -> Iterator[int]:
    """Yield the descendants of a process, except those whose parent has ended."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    for child, parent in parents.items():
        if parent == pid:
            yield from children(child)
            yield child


def _open(address: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, port)) == 0
