"""The ASGI application: shield, routes, and every refusal as one clear line.

/static/...  files of this package      /login, /open?token=  the only pages without a session
pages.py     HTML                        routes/*.py  JSON of one page each
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.responses import Response

from norma.base.errors import NormaError
from norma.studio import pages
from norma.studio.place import Place
from norma.studio.routes import annotate, chat, compliance, entrance, look, people, runs, spec
from norma.studio.security import LOOPBACK, Shield, ToLogin
from norma.studio.words import language_of, said

log = logging.getLogger("norma.studio")
HERE = Path(__file__).parent


class Door:
    """The one-time token of a local studio: used once, then another is said."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.token = say, secrets.token_urlsafe(24)

    def use(self, token: str) -> bool:
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return False
        self.token = secrets.token_urlsafe(24)
        self.say(self.token)
        return True


def build_app(place: Place, *, hosts: frozenset[str] = LOOPBACK, say: Callable[[str], None] = lambda token: None) -> FastAPI:
    """The application of one studio. ``say`` is told each new one-time token of a local studio."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(place.close)

    app = FastAPI(title="Norma studio", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.place, app.state.door = place, Door(say)
    app.add_middleware(Shield, hosts=hosts)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    for module in (entrance, pages, annotate, look, chat, compliance, runs, spec, people):
        app.include_router(module.router)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, NormaError)
        language = language_of(request)
        body = {"error": said(error.what, language), "where": error.where, "mend": said(error.mend or "", language) or None}
        return JSONResponse(body, 409 if "has already marked" in error.what else 400)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if request.method == "GET" and not request.url.path.startswith("/api/"):
            return pages.problem(request, error.status_code, str(error.detail))
        return JSONResponse({"error": said(str(error.detail), language_of(request))}, error.status_code, dict(error.headers or {}))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return JSONResponse({"error": f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"}, 422)

    async def to_login(request: Request, error: Exception) -> Response:
        return RedirectResponse("/login", 303)

    async def broken(request: Request, error: Exception) -> Response:
        log.error("a request failed", exc_info=error)
        return JSONResponse({"error": said(f"the studio failed: {type(error).__name__}", language_of(request))}, 500)

    app.add_exception_handler(NormaError, refused)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(ToLogin, to_login)
    app.add_exception_handler(Exception, broken)
    return app
