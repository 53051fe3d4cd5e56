"""What stands before every page.

    request ─→ Shield: Host known? Origin this one? body small enough? ─→ need(role): cookie, session, role, CSRF token ─→ the page
    answer  ←─ headers: a strict Content-Security-Policy and its like

Scripts and styles come from this server's own files only; nothing inline runs. Two pages draw the report's charts, whose places are style
attributes: there, and nowhere else, those are allowed (a style attribute cannot run anything).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from itsdangerous import BadSignature, TimestampSigner
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from norma.studio.accounts import HOURS, User
from norma.studio.words import language_of, said

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
COOKIE = "norma_studio"
BODY_LIMIT, IMPORT_LIMIT = 1 * 2**20, 16 * 2**20  # bytes of a request; of one that imports items
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; object-src 'none'"
)
CHARTS = ("/compliance", "/runs")  # pages with style attributes
SAFE = ("GET", "HEAD", "OPTIONS")


def host_name(value: str) -> str:
    """The host of a Host header or an Origin, without port and brackets; "" when it cannot be read."""
    try:
        return urlsplit(value if "://" in value else f"//{value}").hostname or ""
    except ValueError:
        return ""


class Shield:
    """ASGI middleware. ``hosts``: names under which this server may be called (DNS rebinding uses others)."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] = LOOPBACK) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                charts = "; style-src-attr 'unsafe-inline'" if path.startswith(CHARTS) else ""
                out.setdefault("content-security-policy", POLICY + charts)
                # same-origin, not no-referrer: with that a browser sends forms with "Origin: null", and the login would be refused.
                out["x-content-type-options"], out["referrer-policy"] = "nosniff", "same-origin"
                out["cross-origin-opener-policy"], out["cross-origin-resource-policy"] = "same-origin", "same-origin"
                out["permissions-policy"] = "camera=(), geolocation=(), microphone=()"
                out.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope["method"], headers)
        if refusal is None and scope["method"] not in SAFE:
            body = await _body(receive, IMPORT_LIMIT if path == "/api/items" else BODY_LIMIT)
            if body is None:
                refusal = 413, "the request is too large"
            else:
                receive = _replay(body, receive)
        if refusal is not None:
            await JSONResponse({"error": said(refusal[1], language_of(Request(scope)))}, refusal[0])(scope, receive, dressed)
            return
        await self.app(scope, receive, dressed)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if host_name(host) not in self.hosts:
            return 403, "this studio is not called by that name"
        origin = headers.get("origin")
        if method not in SAFE and origin is not None and urlsplit(origin).netloc != host:
            return 403, "requests from other sites are refused"
        return None


async def _body(receive: Receive, limit: int) -> bytes | None:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            return None
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


class ToLogin(Exception):
    """A page that needs a login was asked for without one."""


def signer(request: Request) -> TimestampSigner:
    return TimestampSigner(request.app.state.place.accounts.secret, salt="norma.studio.session")


def session_secret(request: Request) -> str | None:
    """The secret in the cookie; None without one, or where signature or age are wrong."""
    try:
        return signer(request).unsign(request.cookies.get(COOKIE, ""), max_age=HOURS * 3600).decode()
    except BadSignature:
        return None


def set_session(request: Request, response: Any, secret: str) -> None:
    """Send the signed cookie: not readable by scripts, not sent by other sites' requests."""
    value, https = signer(request).sign(secret).decode(), request.url.scheme == "https"
    response.set_cookie(COOKIE, value, max_age=HOURS * 3600, httponly=True, samesite="lax", secure=https, path="/")


def need(role: str) -> Callable[[Request], User]:
    """A dependency: the user of this request, who has ``role`` at least; with the CSRF token where something changes."""

    def check(request: Request) -> User:
        place = request.app.state.place
        secret = session_secret(request)
        user: User | None = None if secret is None else place.accounts.user(secret, place.local)
        if user is None:
            if request.method == "GET" and not request.url.path.startswith("/api/"):
                raise ToLogin
            raise HTTPException(401, "please log in")
        if request.method not in SAFE:
            token = request.headers.get("x-csrf-token", "")
            if not hmac.compare_digest(token.encode(), place.accounts.csrf(user.session).encode()):
                raise HTTPException(403, "the page is too old: load it again")
        if not user.may(role):
            raise HTTPException(403, f"this is for a {role}")
        return user

    return check


Annotator = Annotated[User, Depends(need("annotator"))]
Reviewer = Annotated[User, Depends(need("reviewer"))]
Admin = Annotated[User, Depends(need("admin"))]
