"""Run an ASGI application under uvicorn, with limits on connections, requests and hosts."""

import asyncio
import io
import ipaddress
import logging
import math
import resource
import signal
import socket
import sys
import time
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from leaf.errors import LeafError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
MAX_CONNECTIONS = 500
STALL_SECONDS = 10  # seconds between checks for stalled clients
_SHUTDOWN_SECONDS = 3
MAX_UPLOAD = 20 * 2**20  # maximum bytes of one image
_MAX_BODY = MAX_UPLOAD + 64 * 2**10  # maximum bytes of a request body: an image and its form encoding
SMALL_UPLOAD = 2**20  # uploads up to this size never wait for larger ones
SMALL_BUDGET, LARGE_BUDGET = 64 * 2**20, 128 * 2**20  # maximum total bytes of small and of large bodies in memory
_CHUNK_SECONDS, _BODY_SECONDS = 20, 120  # maximum seconds until the next chunk, and for the whole body
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
TOO_LARGE = f"the upload is larger than {MAX_UPLOAD // 2**20} MiB"
BUSY = "the server is busy; try again"


def open_port(host: str, port: int) -> socket.socket:
    """Listen on `host`; port 0 selects a free port. Raises LeafError if the address or port is not available."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
        # Connections inherit TCP_NODELAY. asyncio sets it only for sockets created with the TCP protocol number.
        # Without it, each response on a reused connection waits 40 ms for a delayed acknowledgment.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except socket.gaierror as error:
        raise LeafError(f"host: {host!r}: {error.strerror}. Use an address of this machine.") from None
    except OSError as error:
        raise LeafError(f"port: {port} on {host}: {(error.strerror or '').lower()}. Use another port.") from None


def allowed_hosts(host: str) -> Collection[str]:
    """Return the Host headers to accept: loopback names if `host` is a loopback address, otherwise `*`."""
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
    """Return a QR code of `url` in block characters, for terminals with a dark background."""
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
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # hide the message for each malformed upload
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
    """Close connections whose client stalls.

    uvicorn's keep-alive timeout starts only after a response, and its `limit_concurrency` rejects new clients while
    stalled ones keep their connections. Here, above `MAX_CONNECTIONS`, the oldest stalled connection is closed.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.opened = self.loop.time()
        self._timer = self.loop.call_later(STALL_SECONDS, self._close_if_stalled, self.cycle, 0)
        if len(self.connections) > MAX_CONNECTIONS:
            stalled = [one for one in self.connections if isinstance(one, LimitedConnection) and one.waits_for_client()]
            min(stalled, key=lambda one: one.opened, default=self).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def waits_for_client(self) -> bool:
        """Return whether the server is waiting for the client to send a request or to read a response."""
        return self._idle() or bool(self.cycle.more_body)

    def _idle(self) -> bool:
        unread = self.transport.get_write_buffer_size() > 0
        return unread or self.cycle is None or bool(self.cycle.response_complete)

    def _close_if_stalled(self, cycle: Any, unsent: float) -> None:
        """Close the connection if it was idle at the last check and has made no progress since."""
        now = self.transport.get_write_buffer_size()
        if self._idle() and self.cycle is cycle and now >= unsent:
            self.transport.abort()  # close() would wait for the client to read
            return
        unsent = now if self._idle() else math.inf
        self._timer = self.loop.call_later(STALL_SECONDS, self._close_if_stalled, self.cycle, unsent)


def _raise_open_file_limit(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit: Any = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def add_error_handlers(app: FastAPI) -> None:
    """Make `app` respond to a LeafError or an invalid request with status 422 and `{"error": "one line"}`."""

    @app.exception_handler(LeafError)
    async def rejected(_: Request, error: LeafError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "body"
        return JSONResponse({"error": f"{where}: {first['msg']}"}, 422)


def add_security(app: FastAPI, hosts: Collection[str]) -> None:
    """Add `RequestLimits` to `app`, and reject Host headers not in `hosts` (DNS rebinding); `*` accepts any."""
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts, *(f"{name}." for name in hosts)])
    app.add_middleware(RequestLimits)


class RequestLimits:
    """Reject cross-site requests and large or slow request bodies; limit the total memory of all bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._held = {"small": 0, "large": 0}  # bytes of request bodies in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        async def reject(status: int, error: str) -> None:
            await JSONResponse({"error": error}, status)(scope, receive, send_with_headers)

        length = headers.get("content-length", "")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and _is_cross_site(headers):
            await reject(403, "cross-site requests are not allowed")
        elif length.isdigit() and int(length) > _MAX_BODY:
            await reject(413, TOO_LARGE)
        else:
            body = _Body(receive, self._held)
            try:
                await self.app(scope, body.receive, send_with_headers)
            except asyncio.CancelledError:
                if not started:
                    await reject(503, "the server is stopping")
            finally:
                body.release()


def _is_cross_site(headers: Headers) -> bool:
    """Return whether a page of another site sent the request, according to the browser's headers."""
    origin = headers.get("origin")
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none") or (
        origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    )


class _Body:
    """Limit the size and time of a request body while it arrives, because chunked bodies have no Content-Length."""

    def __init__(self, receive: Receive, held: dict[str, int]) -> None:
        self._receive = receive
        self._held = held
        self._kind = "small"
        self._size = 0
        self._deadline = time.monotonic() + _BODY_SECONDS
        self._complete = False

    async def receive(self) -> Message:
        if self._complete:  # the application is waiting for the client to disconnect
            return await self._receive()
        timeout = min(_CHUNK_SECONDS, self._deadline - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), max(timeout, 0))
        except TimeoutError:
            raise HTTPException(408, "the upload timed out") from None
        self._complete = not message.get("more_body", False)
        self._hold(len(message.get("body", b"")))
        return message

    def _hold(self, more: int) -> None:
        size = self._size + more
        if size > _MAX_BODY:
            raise HTTPException(413, TOO_LARGE)
        kind = "large" if size > SMALL_UPLOAD else "small"
        if kind != self._kind:
            self.release()
        if self._held[kind] + size - self._size > {"small": SMALL_BUDGET, "large": LARGE_BUDGET}[kind]:
            raise HTTPException(503, BUSY, {"Retry-After": "5"})
        self._held[kind] += size - self._size
        self._kind, self._size = kind, size

    def release(self) -> None:
        self._held[self._kind] -= self._size
        self._size = 0
