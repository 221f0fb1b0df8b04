"""Create a network namespace on this machine whose virtual cable can be unplugged. Requires Linux and root."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

NEAR, FAR = "169.254.77.1", "169.254.77.2"  # link-local: not routed


class Network:
    """A network namespace with the address FAR; `inside` is the prefix of a command that runs in it."""

    def __init__(self) -> None:
        self.name = f"leaf{os.getpid()}"
        self.cable = f"lf{os.getpid()}"
        self.inside = ["ip", "netns", "exec", self.name]
        routes = self.ip("route", "show", "match", FAR).splitlines()
        if taken := [route for route in routes if not route.startswith("default")]:
            raise PermissionError(f"this machine has a network at {FAR}: {taken[0]}")
        self.ip("netns", "add", self.name)
        try:
            self.ip("link", "add", self.cable, "type", "veth", "peer", "name", "far", "netns", self.name)
            self.ip("address", "add", f"{NEAR}/30", "dev", self.cable)
            self.ip("link", "set", self.cable, "up")
            for words in (
                ["address", "add", f"{FAR}/30", "dev", "far"],
                *(["link", "set", n, "up"] for n in ("lo", "far")),
            ):
                self.ip("-n", self.name, *words)
        except PermissionError:
            self.remove()
            raise

    def pull(self) -> None:
        """Silently drop all packets."""
        self.ip("link", "set", self.cable, "down")

    def plug(self) -> None:
        """Deliver packets again."""
        self.ip("link", "set", self.cable, "up")

    def remove(self) -> None:
        """Remove the network. Remove the cable by name, because a process inside may still use it."""
        for words in (["link", "delete", self.cable], ["netns", "delete", self.name]):
            with suppress(PermissionError):
                self.ip(*words)

    @staticmethod
    def ip(*words: str) -> str:
        answer = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if answer.returncode:
            raise PermissionError(f"ip {' '.join(words)}: {answer.stderr.strip()}")
        return answer.stdout


def new_network() -> Network:
    """Create a network. Raises PermissionError or FileNotFoundError if that is impossible."""
    if not Path("/proc/sys/net").exists() or os.geteuid() != 0:
        raise PermissionError("a network namespace requires Linux and root")
    return Network()
