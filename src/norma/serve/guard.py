"""What stands before the application: only this machine's own callers, and bodies of bounded size.

    request ─→ Host and Origin name this machine? ─→ a JSON body? ─→ at most `limit` bytes? ─→ the application

Listening on 127.0.0.1 is not enough. A web page open in a browser on this machine can send requests here too: directly (its
``Origin`` gives it away, and so does a body that is not declared as JSON, the only kind a page may send without asking first)
or under a name that its owner points to 127.0.0.1 (its ``Host`` gives it away).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from norma.serve.protocol import ApiError

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
BODY_LIMIT = 4 * 2**20  # bytes


def host_name(value: str) -> str:
    """Host name of a Host header or an Origin, without port and brackets; "" when it cannot be read."""
    try:
        return urlsplit(value if "://" in value else f"//{value}").hostname or ""
    except ValueError:
        return ""


class Guard:
    """ASGI middleware. ``limit`` is the largest request body in bytes."""

    def __init__(self, app: ASGIApp, limit: int = BODY_LIMIT) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is None and scope["method"] in ("POST", "PUT", "PATCH"):
            # The body is read here in full, so that a client that lies about its length is met before any work begins.
            body = await self._body(receive)
            if isinstance(body, ApiError):
                refusal = body
            else:
                receive = _replay(body, receive)
        if refusal is not None:
            await JSONResponse(refusal.body(), refusal.status)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> ApiError | None:
        if host_name(headers.get("host", "")) not in LOOPBACK:
            return ApiError(403, "this server answers callers on this machine only", code="not_loopback")
        origin = headers.get("origin")
        if origin is not None and host_name(origin) not in LOOPBACK:
            return ApiError(403, "requests from web pages elsewhere are refused", code="foreign_origin")
        if method in ("POST", "PUT", "PATCH") and headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return ApiError(415, "the body must be declared as application/json", code="unsupported_media_type")
        length = headers.get("content-length", "0")
        return self._too_large() if length.isdigit() and int(length) > self.limit else None

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the request body is larger than {self.limit} bytes", code="request_too_large")

    async def _body(self, receive: Receive) -> bytes | ApiError:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return ApiError(400, "the connection closed before the body was whole")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.limit:
                return self._too_large()
        return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that hands out the body once, then what the connection says next (that it closed)."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
