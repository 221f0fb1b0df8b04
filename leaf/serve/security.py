"""ASGI middleware: host names, cross-site requests, response headers and limits on request bodies."""

import asyncio
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_UPLOAD = 20 * 2**20  # bytes of one image
_MAX_BODY = MAX_UPLOAD + 64 * 2**10  # with the form around it
SMALL_UPLOAD = 2**20  # uploads up to this size never wait for larger ones
SMALL_BUDGET, LARGE_BUDGET = 64 * 2**20, 128 * 2**20  # total bytes of small and of large bodies in memory
_CHUNK_SECONDS, _BODY_SECONDS = 20, 120  # to the next chunk, and for the whole body
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
TOO_LARGE = f"the upload is larger than {MAX_UPLOAD // 2**20} MiB"
BUSY = "the server is busy; try again"


def add_security(app: Starlette, hosts: Collection[str]) -> None:
    """Add the limits to `app` and accept only requests to one of `hosts` (against DNS rebinding); `*` accepts any."""
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts, *(f"{name}." for name in hosts)])
    app.add_middleware(RequestLimits)


class RequestLimits:
    """Reject cross-site requests and bodies that are too large or too slow; bound the memory of all bodies together."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._held = {"small": 0, "large": 0}  # bytes

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
    """Return whether the browser marks the request as coming from another site's page."""
    origin = headers.get("origin")
    return headers.get("sec-fetch-site", "none") not in ("same-origin", "none") or (
        origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    )


class _Body:
    """Count and time a request body as it arrives, because a chunked body does not announce its length."""

    def __init__(self, receive: Receive, held: dict[str, int]) -> None:
        self._receive = receive
        self._held = held
        self._kind = "small"
        self._size = 0
        self._deadline = time.monotonic() + _BODY_SECONDS
        self._complete = False

    async def receive(self) -> Message:
        if self._complete:  # waits for the client to disconnect
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
