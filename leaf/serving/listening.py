"""Open a port and serve an application there until asked to stop."""

import ipaddress
import signal
import socket

import uvicorn
from starlette.types import ASGIApp

from leaf.errors import LeafError
from leaf.serving.connections import LimitedConnection, allow_open_files

GRACE = 3  # seconds that running requests are given on stopping
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


def open_port(host: str, port: int) -> socket.socket:
    """Listen on `host`; port 0 is a free one. Raises LeafError where the address or the port cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise LeafError(f"host: {host!r}: {error.strerror}; valid: an address of this machine") from None
    except OSError as error:
        raise LeafError(f"port: {port} on {host}: {(error.strerror or '').lower()}; give another one") from None


def is_loopback(host: str) -> bool:
    """Say whether only programs of this machine reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown(host: str) -> str:
    """The host as it stands in an address."""
    return f"[{host}]" if ":" in host else host


def listen(app: ASGIApp, listening: socket.socket, host: str, path: str = "", quiet: bool = False) -> None:
    """Print the address with `path` behind it and serve `app` until SIGINT or SIGTERM; then finish what runs, return.

    `quiet` leaves out a line for each request.
    """
    allow_open_files()
    config = uvicorn.Config(
        app,
        http=LimitedConnection,
        log_level="warning" if quiet else "info",
        server_header=False,
        timeout_graceful_shutdown=GRACE,
    )
    print(f"http://{shown(host)}:{listening.getsockname()[1]}{path}", flush=True)
    # uvicorn raises the signal that stopped it once more when all is done; being asked to stop is no failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listening])
