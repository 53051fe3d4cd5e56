"""The OpenAI-compatible server: one model, optionally under a spec.

GET  /health               is it up, and how many requests wait           GET /metrics   Prometheus
GET  /v1/models            the one model
POST /v1/chat/completions  (``chat``)        POST /v1/completions  (``completions``)
POST /v1/embeddings        (``embeddings``)  POST /v1/feedback     (``feedback``)

request ─→ Recorder (id, metrics, log line) ─→ CORS ─→ Guard (host, origin, key, limits, size) ─→ route ─→ JSON, or server-sent events
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from typing_extensions import TypeIs

from norma.base.errors import NormaError
from norma.serve.admission import Admission
from norma.serve.answering import Backend
from norma.serve.audit import Audit
from norma.serve.author import Author, ModelAuthor
from norma.serve.chat import Chat, Service, as_api, reply
from norma.serve.completions import CompletionRequest, Completions
from norma.serve.embeddings import EmbeddingRequest, Embeddings
from norma.serve.feedback import Feedback, FeedbackRequest
from norma.serve.guard import BODY_LIMIT, Guard
from norma.serve.loop import Loop
from norma.serve.one_by_one import OneByOne
from norma.serve.protocol import ApiError, ChatRequest, parse_error
from norma.serve.record import Meters, Recorder
from norma.serve.ruling import Ruling
from norma.serve.worker import Busy

if TYPE_CHECKING:
    from norma.spec import Spec

log = logging.getLogger("norma.serve")
PATHS = frozenset({"/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/feedback"})


def build_app(
    author: Author | Backend,
    spec: Spec | None = None,
    *,
    waiting: int = 64,
    body_limit: int = BODY_LIMIT,
    ruling: Ruling | None = None,
    admission: Admission | None = None,
    audit: Audit | None = None,
    loop: Loop | None = None,
    consent: bool = False,
    hosts: Iterable[str] | None = (),
    origins: Iterable[str] = (),
) -> FastAPI:
    """The ASGI application.

    Args:
        author: a model (``ModelAuthor``), any other author, or a backend of ``norma.serve``.
        spec: its rules are shown and observed; ``ruling`` says more.
        waiting: requests that may wait or run (of a backend: its own number counts).
        consent: whether exchanges may be shown to annotators where nobody says so.
        hosts, origins: see :class:`Guard`.
    """
    backend = backend_of(author, waiting)
    ruling = ruling or (None if spec is None else Ruling(spec))
    admission = admission or Admission()
    meters = Meters(lambda: backend.load, lambda: int(getattr(getattr(backend, "thread", None), "busy_rows", 0)))
    if (prefixes := getattr(getattr(backend, "thread", None), "prefixes", None)) is not None:
        meters.watch(prefixes)
    service = Service(backend, ruling, admission, meters, audit, loop, consent)
    chat_, completions_, embeddings_, feedback_ = Chat(service), Completions(service), Embeddings(service), Feedback(service)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        backend.close()

    app = FastAPI(title="Norma", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, limit=body_limit, admission=admission, hosts=hosts, origins=origins)
    if pages := list(origins):
        exposed = ["x-norma-compliance", "x-norma-streaming", "x-request-id", "retry-after"]
        app.add_middleware(CORSMiddleware, allow_origins=pages, allow_methods=["GET", "POST"], allow_headers=["*"], expose_headers=exposed)
    app.add_middleware(Recorder, meters=meters, paths=PATHS)
    app.state.worker = app.state.backend = backend
    started = int(time.time())

    @app.get("/health")
    async def health() -> JSONResponse:
        status, code = ("lost", 503) if backend.lost else ("ok", 200)
        found = {"status": status, "model": backend.name, "spec": ruling.spec.id if ruling else None, "requests": backend.load}
        return JSONResponse(found, code)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def card() -> dict[str, Any]:
        return {"id": backend.name, "object": "model", "created": started, "owned_by": "norma", "max_model_len": backend.positions}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        service.known(name)
        return card()

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        return await chat_.respond(body, request)

    @app.post("/v1/completions", response_model=None)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await completions_.respond(body, request)

    @app.post("/v1/embeddings", response_model=None)
    async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
        return await embeddings_.respond(body, request)

    @app.post("/v1/feedback", response_model=None)
    async def feedback(body: FeedbackRequest, request: Request) -> Response:
        return await feedback_.respond(body, request)

    _handle_errors(app)
    return app


def backend_of(author: Author | Backend, waiting: int) -> Backend:
    """A model writes many answers side by side, any other author one at a time; a backend is one already."""
    if isinstance(author, ModelAuthor):
        from norma.serve.local import Local

        return Local(author.model, author.name, waiting=waiting)
    return author if _is_backend(author) else OneByOne(author, waiting)


def _is_backend(author: Author | Backend) -> TypeIs[Backend]:
    return hasattr(author, "write")


def _handle_errors(app: FastAPI) -> None:
    """Every refusal in the shape that OpenAI's clients read."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, (NormaError, ApiError, Busy))
        api = as_api(error)
        return reply(api.body(), api.status, {"retry-after": str(api.retry)} if api.retry else None)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [{**e, "loc": e["loc"][1:]} for e in error.errors()]  # without the leading "body"
        if errors[0]["type"] == "json_invalid":
            return reply(ApiError(400, "the body is not JSON", code="invalid_json").body(), 400)
        api = parse_error(errors)
        return reply(api.body(), api.status)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path} is not offered here" if error.status_code in (404, 405) else str(error.detail)
        return reply(ApiError(error.status_code, message).body(), error.status_code, dict(error.headers or {}))

    async def broken(request: Request, error: Exception) -> Response:
        log.error("a request failed", exc_info=error)
        body = ApiError(500, f"the server failed: {type(error).__name__}").body()
        return JSONResponse(body, 500, {"connection": "close"})  # Starlette raises the error again, and the HTTP server hangs up

    for kind in (NormaError, ApiError, Busy):
        app.add_exception_handler(kind, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, broken)
