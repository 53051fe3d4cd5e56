"""``POST /v1/chat/completions``.

    ChatRequest ─→ Job ─→ backend ─┬─ no rule holds answers back: pieces go out as they come, verdicts with the last event
                                   └─ else: whole answers ─→ decide (best of n, refusal) ─→ out          ─→ audit, loop, meters

The last of an answer goes out when its audit row is on the disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.responses import Response

from norma.base.errors import NormaError
from norma.base.files import to_json
from norma.serve.admission import Admission
from norma.serve.answering import Answer, Backend, Job, prepare, whole
from norma.serve.audit import Audit, Served
from norma.serve.deciding import REFUSED, decide
from norma.serve.keys import Key
from norma.serve.loop import Loop
from norma.serve.protocol import ApiError, ChatRequest, choice, chunk, completion, extra_chunk, unsupported, usage
from norma.serve.record import Facts, Meters, facts
from norma.serve.ruling import Outcome, Ruling, header
from norma.serve.worker import Busy

log = logging.getLogger("norma.serve")
T = TypeVar("T")
WAKE = 10.0  # seconds after which a held stream says that it lives


@dataclass
class Service:
    """All that answers a request. ``consent``: what is assumed of those who say nothing."""

    backend: Backend
    ruling: Ruling | None
    admission: Admission
    meters: Meters
    audit: Audit | None = None
    loop: Loop | None = None
    consent: bool = False

    def known(self, name: str) -> None:
        if name != self.backend.name:
            message = f"the model '{name}' is not served here; '{self.backend.name}' is"
            raise ApiError(404, message, param="model", code="model_not_found")

    def room(self) -> None:
        """Raises ApiError (429) where no further request may wait."""
        if self.backend.full:
            raise busy(self.backend.patience())

    def spend(self, key: Key, known: Facts, prompt: int, completion: int) -> None:
        known.prompt_tokens, known.completion_tokens = prompt, completion
        self.admission.spent(key, prompt + completion)


def busy(seconds: int) -> ApiError:
    return ApiError(429, "too many requests are waiting for this model", code="busy", retry=seconds)


def as_api(error: Exception) -> ApiError:
    """An error that may be told, as the client sees it."""
    if isinstance(error, ApiError):
        return error
    return busy(error.seconds) if isinstance(error, Busy) else ApiError(400, str(error))


def reply(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(body), status, headers, media_type="application/json")


def sse(body: Any) -> str:
    """One server-sent event."""
    return f"data: {to_json(body)}\n\n"


class Chat:
    """Answers chat requests."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def respond(self, body: ChatRequest, request: Request) -> Response:
        service, key, known = self.service, request.state.key, facts(request.scope)
        service.known(body.model)
        service.room()
        for name, asked in (
            ("logprobs", body.top() is not None),
            ("response_format", body.response_format and body.response_format.wanted()),
        ):
            if asked and name not in service.backend.gifts:
                raise unsupported(name)
        job = await asyncio.to_thread(prepare, body, service.backend, service.ruling, key.max_tokens)
        turn = _Turn(service, job, key, known, _consent(body, request, service.consent))
        if body.stream:
            known.stream = True
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            if turn.holding:
                headers["x-norma-streaming"] = "held"
            return StreamingResponse(turn.events(with_usage), media_type="text/event-stream", headers=headers)
        answers, norma = await unless_gone(turn.whole(), request)
        counts = usage(job.prompt_tokens or max(a.read for a in answers), sum(a.tokens for a in answers))
        choices = [
            choice(i, a.text, a.finish, a.logprobs if job.top is not None else None, refused=a.finish == REFUSED)
            for i, a in enumerate(answers)
        ]
        headers = {"x-norma-compliance": known.compliance} if norma is not None else {}
        return reply(completion(turn.head, choices, counts, norma), headers=headers)


class _Turn:
    """One request's way through judgement and audit."""

    def __init__(self, service: Service, job: Job, key: Key, known: Facts, consent: bool) -> None:
        self.service, self.job, self.key, self.known, self.consent = service, job, key, known, consent
        self.head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": service.backend.name}
        self.holding = service.ruling.holding(job.item) if service.ruling is not None else ()
        known.answer = str(self.head["id"])

    async def whole(self) -> tuple[list[Answer], dict[str, Any] | None]:
        """The answers that are given out, and the ``norma`` field."""
        answers = await whole(self.service.backend, self.job)
        return await self._close(answers)

    async def _close(self, answers: list[Answer]) -> tuple[list[Answer], dict[str, Any] | None]:
        service, job = self.service, self.job
        written, outcomes, norma = answers, list[Outcome](), None
        if service.ruling is not None:
            answers, outcomes, written = await decide(service.backend, job, answers, service.ruling)
            norma = service.ruling.field(job.item, outcomes)
            self.known.compliance = header(outcomes)
        service.spend(self.key, self.known, self._counts(answers)["prompt_tokens"], sum(a.tokens for a in answers))
        if service.audit is not None:
            rows = [self._row(i, w, outcomes[i] if outcomes else None) for i, w in enumerate(written)]
            await asyncio.to_thread(self._keep, rows)
        for outcome in outcomes:
            service.meters.actions.labels(outcome.action).inc()
            for v in outcome.judgement.verdicts:
                service.meters.verdicts.labels(v.rule, v.status.value).inc()
        return answers, norma

    def _counts(self, answers: Sequence[Answer]) -> dict[str, int]:
        return usage(self.job.prompt_tokens or max(a.read for a in answers), sum(a.tokens for a in answers))

    def _row(self, index: int, written: Answer, outcome: Outcome | None) -> Served:
        spec, item = (None if self.service.ruling is None else self.service.ruling.spec), self.job.item
        return Served(
            answer=str(self.head["id"]),
            choice=index,
            key=self.key.id,
            model=self.service.backend.name,
            spec="" if spec is None else spec.id,
            spec_digest="" if spec is None else spec.digest,
            language=item.language,
            messages=item.messages,
            facts=item.facts,
            response=written.text,
            action="served" if outcome is None else outcome.action,
            tried=1 if outcome is None else outcome.tried,
            reward=None if outcome is None else outcome.judgement.reward,
            status="none" if outcome is None else outcome.judgement.status,
            verdicts=[] if outcome is None else [v.row() for v in outcome.judgement.verdicts],
            consent=self.consent,
        )

    def _keep(self, rows: Sequence[Served]) -> None:
        service = self.service
        assert service.audit is not None
        kept = service.audit.add(rows)
        if service.loop is not None:
            try:
                service.meters.items.labels("verdict").inc(service.loop.observe(kept))
            except NormaError as error:  # the answer is in the audit; what annotators see of it is not the client's trouble
                log.error("an answer could not be put into the label store", exc_info=error)

    # ── streaming ──
    async def events(self, with_usage: bool) -> AsyncIterator[str]:
        head, job = self.head, self.job
        try:
            for index in range(job.choices):
                yield sse(chunk(head, index, {"role": "assistant", "content": ""}))
            if self.holding:
                # Held back until checked; the client is told so, and that the line is alive.
                yield sse(extra_chunk(head, None, {"held": list(self.holding)}))
                work = asyncio.ensure_future(self.whole())
                try:
                    while not (await asyncio.wait({work}, timeout=WAKE))[0]:
                        yield ": held back until checked\n\n"
                    answers, norma = work.result()
                finally:
                    work.cancel()
                self.known.speaks()
                for index, a in enumerate(answers):
                    entries = a.logprobs if job.top is not None else None
                    said = {"content": a.text} | ({"refusal": a.text} if a.finish == REFUSED else {})
                    yield sse(chunk(head, index, said, None, entries))
                    yield sse(chunk(head, index, {}, a.finish))
            else:
                answers = [Answer() for _ in range(job.choices)]
                async with aclosing(self.service.backend.write(job)) as pieces:
                    async for index, piece in pieces:
                        self.known.speaks()
                        answers[index].add(piece)
                        entries = list(piece.logprobs) if job.top is not None else None
                        if piece.text or piece.logprobs:
                            yield sse(chunk(head, index, {"content": piece.text}, None, entries))
                        if piece.finish:
                            yield sse(chunk(head, index, {}, piece.finish))
                answers, norma = await self._close(answers)
            last = extra_chunk(head, self._counts(answers) if with_usage else None, norma)
            if last is not None:
                yield sse(last)
            yield "data: [DONE]\n\n"
        except (NormaError, ApiError, Busy) as error:
            # The status line is gone already: an error event is all that can still be said.
            yield sse(as_api(error).body())
        except Exception as error:
            log.error("a request failed", exc_info=error)
            yield sse(ApiError(500, f"the server failed: {type(error).__name__}").body())


def _consent(body: ChatRequest, request: Request, assumed: bool) -> bool:
    """What the body says, else the header ``X-Norma-Consent: yes|no``, else what the server assumes."""
    if body.norma.consent is not None:
        return body.norma.consent
    return said_yes(request.headers.get("x-norma-consent"), assumed)


def said_yes(value: str | None, assumed: bool) -> bool:
    return assumed if value is None else value.strip().lower() in ("yes", "true", "1")


async def unless_gone(work: Awaitable[T], request: Request) -> T:
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
