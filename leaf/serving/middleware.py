"""The server's middleware: allowed host names, the size of a request, headers that restrict what a browser loads."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_UPLOAD = 20 * 2**20  # bytes of one photograph
_FORM = 64 * 2**10  # bytes of the form around it
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
TOO_LARGE = f"the upload is larger than {MAX_UPLOAD // 2**20} MiB"


class SecurityMiddleware:
    """ASGI middleware that refuses unknown host names and large bodies, and adds headers that keep the pages local."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] = frozenset()) -> None:
        """Wrap `app`. `hosts` are the host names it answers to, any if empty: with them a page elsewhere cannot reach a
        server on 127.0.0.1 by a name of its own (DNS rebinding)."""
        self.app = app
        self.hosts = hosts

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
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_UPLOAD + _FORM:
            await JSONResponse({"error": TOO_LARGE}, 413)(scope, receive, send)
            return
        await self.app(scope, _counted(receive), send)


def _name(host: str) -> str:
    """Give a Host header without its port; an IPv6 address keeps its brackets."""
    return host[: host.rfind("]") + 1] if host.startswith("[") else host.partition(":")[0]


def _counted(receive: Receive) -> Receive:
    """Count the body as it arrives: a chunked one does not announce its length."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MAX_UPLOAD + _FORM:
            raise HTTPException(413, TOO_LARGE)
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return with_headers
