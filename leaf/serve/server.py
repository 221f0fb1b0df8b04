"""The HTTP server: its port, connections and end; who may ask, how much and how long a request may send."""

import asyncio
import ipaddress
import logging
import resource
import signal
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
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


MAX_UPLOAD = 20 * 2**20  # bytes of one photograph
_FORM = 64 * 2**10  # bytes of the form around it
SMALL_UPLOAD = 2**20  # an upload up to here never waits for larger ones
SMALL_ROOM, LARGE_ROOM = 64 * 2**20, 128 * 2**20  # bytes of small and of large uploads that are held at once
SILENCE_SECONDS, BODY_SECONDS = 20, 120  # without a byte, and for a whole body
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
TOO_LARGE = f"the upload is larger than {MAX_UPLOAD // 2**20} MiB"
TOO_MANY = "too many images are waiting; try again"


class SecurityMiddleware:
    """ASGI middleware that refuses what a stranger's page or program could do to the server.

    It refuses unknown host names, requests that a page of another site sends, large and slow bodies, and bodies beyond
    the room for them, from the first byte to the answer; it adds headers that keep the pages local.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] = frozenset()) -> None:
        """Wrap `app`. `hosts` are the host names it answers to, any if empty: with them a page elsewhere cannot reach a
        server on 127.0.0.1 by a name of its own (DNS rebinding)."""
        self.app = app
        self.hosts = hosts
        self._held = {"small": 0, "large": 0}  # bytes of bodies by the room that they take

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        send = _with_headers(send)
        if self.hosts and _name(headers.get("host", "")) not in self.hosts:
            refusal = JSONResponse({"error": f"host: valid: {', '.join(sorted(self.hosts))}"}, 421)
            await refusal(scope, receive, send)
            return
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and _from_another_site(headers):
            await JSONResponse({"error": "a page of another site may not ask this server"}, 403)(scope, receive, send)
            return
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_UPLOAD + _FORM:
            await JSONResponse({"error": TOO_LARGE}, 413)(scope, receive, send)
            return
        await self._run(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the request with its body counted; a server that stops answers 503 to what it cannot finish."""
        body = _Body(receive, self._held)
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, body.receive, noting)
        except asyncio.CancelledError:
            if not started:
                await JSONResponse({"error": "the server stops"}, 503)(scope, receive, send)
        finally:
            body.release()


def _name(host: str) -> str:
    """Give a Host header without its port, in lower case; an IPv6 address keeps its brackets."""
    name = host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return name.lower().removesuffix(".")


def _from_another_site(headers: Headers) -> bool:
    """Whether a browser says that a page of another site sends this request; programs say nothing of the kind."""
    origin = headers.get("origin")
    site = headers.get("sec-fetch-site", "none")
    return site not in ("same-origin", "none") or (
        origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    )


class _Body:
    """A request's body as it arrives, counted: a chunked one does not announce its length, and a slow one may not come
    for ever."""

    def __init__(self, receive: Receive, held: dict[str, int]) -> None:
        self._receive = receive
        self._held = held
        self._room = "small"
        self._size = 0
        self._until = time.monotonic() + BODY_SECONDS
        self._whole = False

    async def receive(self) -> Message:
        if self._whole:  # whoever asks on waits for the client to go away
            return await self._receive()
        left = min(SILENCE_SECONDS, self._until - time.monotonic())
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0))
        except TimeoutError:
            raise HTTPException(408, "the upload did not come to its end in time") from None
        self._whole = not message.get("more_body", False)
        self._hold(len(message.get("body", b"")))
        return message

    def _hold(self, more: int) -> None:
        size = self._size + more
        if size > MAX_UPLOAD + _FORM:
            raise HTTPException(413, TOO_LARGE)
        room = "large" if size > SMALL_UPLOAD else "small"
        if room != self._room:
            self.release()
        if self._held[room] + size - self._size > {"small": SMALL_ROOM, "large": LARGE_ROOM}[room]:
            raise HTTPException(503, TOO_MANY, {"Retry-After": "5"})
        self._held[room] += size - self._size
        self._room, self._size = room, size

    def release(self) -> None:
        """Give the room back."""
        self._held[self._room] -= self._size
        self._size = 0


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return with_headers
