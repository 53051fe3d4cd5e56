"""What stands before the application: known callers, within their limits, and bodies of bounded size.

    request ─→ Host and Origin may be? ─→ a JSON body? ─→ key and limits (``admission``) ─→ at most `limit` bytes? ─→ the application

Listening on 127.0.0.1 is not enough. A web page open in a browser on this machine can send requests here too: directly (its
``Origin`` gives it away, and so does a body that is not declared as JSON, the only kind a page may send without asking first)
or under a name that its owner points to 127.0.0.1 (its ``Host`` gives it away).
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from norma.serve.admission import Admission
from norma.serve.protocol import ApiError
from norma.serve.record import facts

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
BODY_LIMIT = 4 * 2**20  # bytes


def host_name(value: str) -> str:
    """Host name of a Host header or an Origin, without port and brackets; "" when it cannot be read."""
    try:
        return urlsplit(value if "://" in value else f"//{value}").hostname or ""
    except ValueError:
        return ""


class Guard:
    """ASGI middleware.

    Args:
        limit: the largest request body in bytes.
        hosts: names under which this server may be asked, beside this machine's own; None: any, for a server that asks for keys.
        origins: web pages that may ask (``https://chat.example``), beside those of this machine.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit: int = BODY_LIMIT,
        admission: Admission | None = None,
        hosts: Iterable[str] | None = (),
        origins: Iterable[str] = (),
    ) -> None:
        self.app, self.limit, self.admission = app, limit, admission or Admission()
        self.hosts = None if hosts is None else LOOPBACK | {h.lower() for h in hosts}
        self.origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._refuse(scope["method"], headers)
            key = self.admission.who(scope["path"], headers.get("authorization"))
            scope["state"]["key"] = key
            facts(scope).key = key.name
            limited = scope["method"] != "GET"
            if limited:
                self.admission.enter(key)
        except ApiError as refusal:
            await _answer(refusal)(scope, receive, send)
            return
        try:
            if limited:
                # The body is read here in full, so that a client that lies about its length is met before any work begins.
                receive = _replay(await self._body(receive), receive)
            await self.app(scope, receive, send)
        except ApiError as refusal:
            await _answer(refusal)(scope, receive, send)
        finally:
            if limited:
                self.admission.leave(key)

    def _refuse(self, method: str, headers: Headers) -> None:
        if self.hosts is not None and host_name(headers.get("host", "")) not in self.hosts:
            raise ApiError(403, "this server answers callers on this machine only", code="not_loopback")
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and host_name(origin) not in LOOPBACK:
            raise ApiError(403, "requests from web pages elsewhere are refused", code="foreign_origin")
        if method in ("POST", "PUT", "PATCH") and headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "the body must be declared as application/json", code="unsupported_media_type")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.limit:
            raise self._too_large()

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the request body is larger than {self.limit} bytes", code="request_too_large")

    async def _body(self, receive: Receive) -> bytes:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ApiError(400, "the connection closed before the body was whole")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.limit:
                raise self._too_large()
        return bytes(body)


def _answer(refusal: ApiError) -> JSONResponse:
    headers = {"www-authenticate": "Bearer"} if refusal.status == 401 else {}
    if refusal.retry:
        headers["retry-after"] = str(refusal.retry)
    return JSONResponse(refusal.body(), refusal.status, headers)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A receive that hands out the body once, then what the connection says next (that it closed)."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
