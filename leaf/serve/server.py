"""Run an ASGI application under uvicorn, with limits on connections that make no progress."""

import asyncio
import io
import ipaddress
import logging
import resource
import signal
import socket
import sys
from collections.abc import Collection
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from leaf.errors import LeafError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
MAX_CONNECTIONS = 500
STALL_SECONDS = 10  # without a complete request head, or without a byte of the response read
_SHUTDOWN_SECONDS = 3


def open_port(host: str, port: int) -> socket.socket:
    """Listen on `host`; port 0 selects a free port. Raises LeafError if the address or port is not available."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
        # Connections inherit this. asyncio sets it only for sockets created with the TCP protocol number; without
        # it, each response on a reused connection waits 40 ms for a delayed acknowledgment.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except socket.gaierror as error:
        raise LeafError(f"host: {host!r}: {error.strerror}. Use an address of this machine.") from None
    except OSError as error:
        raise LeafError(f"port: {port} on {host}: {(error.strerror or '').lower()}. Use another port.") from None


def allowed_hosts(host: str) -> Collection[str]:
    """Return the Host headers to accept on `host`: loopback names only on loopback, otherwise `*`."""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return LOOPBACK | {_in_url(host).lower()} if loopback else ["*"]


def lan_address(host: str) -> str:
    """Return the address of this machine on its network if `host` is 0.0.0.0 or ::, otherwise `host`."""
    if host not in ("0.0.0.0", "::"):  # noqa: S104 - compared, not opened
        return host
    family, far = (socket.AF_INET6, "2001:db8::1") if ":" in host else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))  # selects the outgoing interface; sends nothing
            return str(probe.getsockname()[0])
    except OSError:  # no network
        return "::1" if ":" in host else "127.0.0.1"


def qr_code(url: str) -> str:
    """Draw `url` as a QR code of block characters for a terminal with a dark background."""
    import segno

    text = io.StringIO()
    segno.make(url, micro=False).terminal(text, compact=True)
    return text.getvalue()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def run(app: ASGIApp, listening: socket.socket, host: str, path: str = "", quiet: bool = False) -> None:
    """Print the URL, ending in `path`, and serve `app` until SIGINT or SIGTERM; `quiet` turns off the access log.

    If `host` is 0.0.0.0 or ::, print the LAN address and, on a terminal, its QR code.
    """
    _raise_open_file_limit(4 * MAX_CONNECTIONS)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs a line per malformed upload
    config = uvicorn.Config(
        app,
        http=LimitedConnection,
        log_level="warning" if quiet else "info",
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    shown = lan_address(host)
    url = f"http://{_in_url(shown)}:{listening.getsockname()[1]}{path}"
    print(url, flush=True)
    if shown != host and sys.stdout.isatty():
        print(qr_code(url), flush=True)
    # uvicorn raises the signal again after shutdown, which would turn a clean stop into a failure.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listening])


class LimitedConnection(H11Protocol):
    """Close a connection whose client stalls.

    uvicorn's keep-alive timeout starts only after a response, and its `limit_concurrency` rejects new clients while
    stalled ones keep their connections. Here, above `MAX_CONNECTIONS`, the oldest stalled connection is closed.
    """

    _timer: asyncio.TimerHandle | None = None
    _unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.opened = self.loop.time()
        self._update_timer()
        if len(self.connections) > MAX_CONNECTIONS:
            stalled = [one for one in self.connections if isinstance(one, LimitedConnection) and one.waits_for_client()]
            min(stalled, key=lambda one: one.opened, default=self).transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._update_timer()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._update_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def waits_for_client(self) -> bool:
        """Return whether a request is incomplete or a response has not been read."""
        return self._idle() or bool(self.cycle.more_body)

    def _idle(self) -> bool:
        unread = self.transport.get_write_buffer_size() > 0
        return unread or self.cycle is None or bool(self.cycle.response_complete)

    def _update_timer(self) -> None:
        if not self._idle():
            self._stop_timer()
        elif self._timer is None:
            self._unsent = self.transport.get_write_buffer_size()
            self._timer = self.loop.call_later(STALL_SECONDS, self._close_if_stalled)

    def _close_if_stalled(self) -> None:
        self._timer = None
        if self._idle() and not self.transport.get_write_buffer_size() < self._unsent:
            self.transport.abort()  # close() would wait for the client to read
        else:
            self._update_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _raise_open_file_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit: Any = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
