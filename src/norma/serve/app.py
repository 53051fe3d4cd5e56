"""The OpenAI-compatible server: one model, optionally under a spec, for callers on this machine.

    GET  /health               is it up, and how many requests wait
    GET  /v1/models            the one model
    POST /v1/chat/completions  Guard ─→ ChatRequest ─→ prepare ─→ Worker (the model's one thread) ─→ JSON, or server-sent events

With a spec the active rules are rendered into the prompt, and the answer carries a `norma` field with every rule's verdict.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.responses import Response

from norma.base.errors import NormaError
from norma.base.files import to_json
from norma.serve.answering import End, Job, judge, prepare, write
from norma.serve.author import Author
from norma.serve.guard import BODY_LIMIT, Guard
from norma.serve.protocol import ApiError, ChatRequest, chunk, completion, last_chunk, parse_error, usage
from norma.serve.worker import Busy, Worker

if TYPE_CHECKING:
    from norma.spec import Spec

log = logging.getLogger("norma.serve")
T = TypeVar("T")


def build_app(author: Author, spec: Spec | None = None, *, waiting: int = 64, body_limit: int = BODY_LIMIT) -> FastAPI:
    """The ASGI application. At most ``waiting`` requests wait or run; a body has at most ``body_limit`` bytes."""
    worker = Worker(waiting)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        worker.close()

    app = FastAPI(title="Norma", lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, limit=body_limit)
    app.state.worker = worker
    started = int(time.time())

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "model": author.name, "spec": spec.id if spec else None, "requests": worker.load}

    def card() -> dict[str, Any]:
        return {"id": author.name, "object": "model", "created": started, "owned_by": "norma", "max_model_len": author.positions}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card()]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        _known(name)
        return card()

    def _known(name: str) -> None:
        if name != author.name:
            raise ApiError(404, f"the model '{name}' is not served here; '{author.name}' is", param="model", code="model_not_found")

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> Response:
        _known(body.model)
        if worker.load >= waiting:
            raise _busy()
        job = await asyncio.to_thread(prepare, body, author, spec)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": author.name}
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return StreamingResponse(_events(job, head, with_usage), media_type="text/event-stream", headers={"cache-control": "no-store"})
        texts, ends = await _unless_gone(_whole(job), request)
        norma = await asyncio.to_thread(judge, job, texts, spec) if spec else None
        counts = usage(job.prompt_tokens, sum(end.tokens for end in ends))
        return _json(completion(head, [(text, end.finish) for text, end in zip(texts, ends, strict=True)], counts, norma))

    async def _whole(job: Job) -> tuple[list[str], list[End]]:
        texts, ends = [""] * job.choices, [End("stop", 0)] * job.choices
        async with aclosing(_run(job)) as pieces:
            async for index, piece in pieces:
                if isinstance(piece, End):
                    ends[index] = piece
                else:
                    texts[index] += piece
        return texts, ends

    def _run(job: Job) -> Any:
        return worker.run(lambda: write(job, author))

    async def _events(job: Job, head: dict[str, Any], with_usage: bool) -> AsyncIterator[str]:
        texts, tokens = [""] * job.choices, 0
        try:
            for index in range(job.choices):
                yield _event(chunk(head, index, {"role": "assistant", "content": ""}))
            async with aclosing(_run(job)) as pieces:
                async for index, piece in pieces:
                    if isinstance(piece, End):
                        tokens += piece.tokens
                        yield _event(chunk(head, index, {}, piece.finish))
                    else:
                        texts[index] += piece
                        yield _event(chunk(head, index, {"content": piece}))
            norma = await asyncio.to_thread(judge, job, texts, spec) if spec else None
            last = last_chunk(head, usage(job.prompt_tokens, tokens) if with_usage else None, norma)
            if last is not None:
                yield _event(last)
            yield "data: [DONE]\n\n"
        except (NormaError, ApiError, Busy) as error:
            # The status line is gone already: an error event is all that can still be said.
            yield _event(_as_api(error).body())

    _handle_errors(app)
    return app


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(body), status, headers, media_type="application/json")


def _event(body: Any) -> str:
    return f"data: {to_json(body)}\n\n"


def _busy() -> ApiError:
    return ApiError(503, "too many requests are waiting for this model", code="busy", retry=1)


def _as_api(error: NormaError | ApiError | Busy) -> ApiError:
    if isinstance(error, ApiError):
        return error
    return _busy() if isinstance(error, Busy) else ApiError(400, str(error))


async def _unless_gone(work: Awaitable[T], request: Request) -> T:
    """``work``, cancelled as soon as the client closes the connection."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "the client closed the connection")
        return task.result()
    finally:
        watch.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _handle_errors(app: FastAPI) -> None:
    """Every refusal in the shape that OpenAI's clients read."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, (NormaError, ApiError, Busy))
        api = _as_api(error)
        return _json(api.body(), api.status, {"retry-after": str(api.retry)} if api.retry else None)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = [{**e, "loc": e["loc"][1:]} for e in error.errors()]  # without the leading "body"
        if errors[0]["type"] == "json_invalid":
            return _json(ApiError(400, "the body is not JSON", code="invalid_json").body(), 400)
        api = parse_error(errors)
        return _json(api.body(), api.status)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path} is not offered here" if error.status_code in (404, 405) else str(error.detail)
        return _json(ApiError(error.status_code, message).body(), error.status_code, dict(error.headers or {}))

    async def broken(request: Request, error: Exception) -> Response:
        log.error("a request failed", exc_info=error)
        return JSONResponse(ApiError(500, f"the server failed: {type(error).__name__}").body(), 500)

    for kind in (NormaError, ApiError, Busy):
        app.add_exception_handler(kind, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, broken)
