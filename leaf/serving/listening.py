"""Open a port and serve an application there until asked to stop."""

import asyncio
import ipaddress
import logging
import resource
import signal
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from leaf.errors import LeafError

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
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a line for each broken upload fills a disk
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


MAX_CONNECTIONS = 500
HEAD_SECONDS = 10  # until the head of a request is there


class LimitedConnection(H11Protocol):
    """A connection that is closed when the head of its request does not come.

    Above `MAX_CONNECTIONS` the oldest one that waits for its client gives way, so that clients who send nothing, or
    stop in the middle, do not lock out others.
    """

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.made = self.loop.time()
        self._expect_head()
        if len(self.connections) > MAX_CONNECTIONS:
            idle = [one for one in self.connections if isinstance(one, LimitedConnection) and one.waits_for_client()]
            min(idle, key=lambda one: one.made, default=self).transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def waits_for_client(self) -> bool:
        """Whether the head or the body of a request has not come whole."""
        return self._between_requests() or bool(self.cycle.more_body)

    def _between_requests(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _expect_head(self) -> None:
        if not self._between_requests():
            self._stop_waiting()
        elif self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._waiting = None
        if self._between_requests():
            self.transport.abort()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def allow_open_files(wanted: int = 4 * MAX_CONNECTIONS) -> None:
    """Raise this process's limit of open files: each connection is one; without any left a server only complains."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most: Any = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
