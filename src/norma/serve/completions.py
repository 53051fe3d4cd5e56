"""``POST /v1/completions``: plain continuations, and what the model thinks of a text it is given.

    prompt: text, ids, or several of either ─→ ids ─┬─ echo: log p of every token of the prompt (one reading, no writing)
                                                    └─ rows of the running batch ─→ text, tokens, log p
    with --upstream: passed on (``passing``)                 ─→ audit

``echo`` with ``logprobs`` is how evaluation programs (EleutherAI's lm-eval, ``local-completions``) score given answers. No spec is applied
here: a raw text has no roles, and its rules nowhere to stand.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from pydantic import Field
from starlette.responses import Response

from norma.generate.scoring import Told
from norma.serve.answering import Answer, Job, bounded, room
from norma.serve.audit import Served
from norma.serve.chat import Service, reply, said_yes, unless_gone
from norma.serve.keys import Key
from norma.serve.local import Local, finite
from norma.serve.passing import PassedOn, prompt_texts, several, told
from norma.serve.protocol import ApiError, SamplingFields, Text, unsupported, usage
from norma.serve.record import Facts, facts
from norma.serve.upstream import Upstream
from norma.spec import Item

MAX_PROMPTS, DEFAULT_TOKENS = 64, 16
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


class CompletionRequest(SamplingFields):
    """Body of ``POST /v1/completions``. ``max_tokens: 0`` with ``echo`` writes nothing."""

    prompt: (
        Text
        | Ids
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[Ids], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    suffix: None = None
    best_of: int | None = Field(None, ge=1, le=1)


class Completions:
    """Answers completion requests: with a model in this process, or through another server."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def respond(self, body: CompletionRequest, request: Request) -> Response:
        service, key, known = self.service, request.state.key, facts(request.scope)
        service.known(body.model)
        service.room()
        local = service.backend
        if body.max_tokens == 0 and not body.echo:
            raise ApiError(400, "max_tokens: 0 is for 'echo': true", param="max_tokens", code="invalid_value")
        turn = _Turn(service, body, key, known, said_yes(request.headers.get("x-norma-consent"), service.consent))
        if isinstance(local, Upstream):
            asked = body.model_dump(exclude_unset=True)
            passed = PassedOn(local, asked, len(turn.prompts), key.max_tokens)
            if body.stream:
                return turn.streamed(turn.passed(passed))
            choices = await unless_gone(passed.whole(), request)
            await turn.close(passed.texts, passed.usage)
            return reply({**turn.head, "choices": choices, "usage": passed.usage})
        if not isinstance(local, Local):
            raise ApiError(501, "plain completions are offered only for a model in this process, or behind --upstream")
        if body.stream and body.echo:
            raise unsupported("echo with stream")
        prompts = await asyncio.to_thread(_prompts, body, local)
        jobs = [self._job(body, ids, key.max_tokens) for ids in prompts]
        if body.stream:
            return turn.streamed(turn.written(local, jobs))
        thoughts, answers = await unless_gone(_made(local, body, jobs), request)
        written = await asyncio.to_thread(_choices, local, body, jobs, thoughts, answers)
        counts = usage(sum(map(len, prompts)), sum(a.tokens for a in answers))
        await turn.close([c["text"] for c in written], counts)
        return reply({**turn.head, "choices": written, "usage": counts})

    def _job(self, body: CompletionRequest, ids: tuple[int, ...], most: int | None) -> Job:
        wanted = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
        positions = self.service.backend.positions or len(ids) + wanted
        if wanted:
            limit = room(len(ids), bounded(wanted, most), positions, "the prompt", "", "prompt")
        else:
            limit = 0
            room(len(ids), 1, positions + 1, "the prompt", "", "prompt")
        return Job(
            Item("completion", ()), [], len(ids), limit, body.sampling(limit), tuple(body.stop or ()), body.n or 1, body.logprobs, None, ids
        )


def _prompts(body: CompletionRequest, local: Local) -> list[tuple[int, ...]]:
    """The prompts as ids. Raises ApiError for an id that the model has not, or an empty prompt."""
    found = [local.encode(p) if isinstance(p, str) else tuple(p) for p in several(body.prompt)]
    size = local.model.config.vocab_size
    for ids in found:
        if not ids:
            raise ApiError(400, "the prompt is empty", param="prompt", code="invalid_value")
        if max(ids) >= size:
            raise ApiError(400, f"prompt: token {max(ids)} does not exist, the model has {size}", param="prompt", code="invalid_value")
    return found


async def _made(local: Local, body: CompletionRequest, jobs: Sequence[Job]) -> tuple[list[Told], list[Answer]]:
    """(what the model thinks of each prompt, where that was asked for; the answers, prompt after prompt)."""
    told = await local.score([job.prompt for job in jobs], body.logprobs) if body.echo and body.logprobs is not None else []
    answers = [Answer() for job in jobs for _ in range(job.choices)]
    if all(job.limit for job in jobs):
        async with aclosing(local.write_each(jobs)) as pieces:
            async for place, piece in pieces:
                answers[place].add(piece)
    return told, answers


def _choices(
    local: Local, body: CompletionRequest, jobs: Sequence[Job], told: Sequence[Told], answers: Sequence[Answer]
) -> list[dict[str, Any]]:
    choices = []
    for place, answer in enumerate(answers):
        number = place // jobs[0].choices
        job, logprobs = jobs[number], None
        if body.logprobs is not None:
            first = [{"token": local.text_of(job.prompt[0])}] if told else []
            read = [local.entry(t) for t in told[number] if t is not None] if told else []
            logprobs = _table([*first, *read, *answer.logprobs])
        before = local.model.tokenizer.decode(list(job.prompt)) if body.echo else ""
        finish = answer.finish if job.limit else "length"
        choices.append({"index": place, "text": before + answer.text, "logprobs": logprobs, "finish_reason": finish})
    return choices


def _table(entries: Sequence[Mapping[str, Any]], offset: int = 0) -> dict[str, Any]:
    """OpenAI's four columns of equal length; nothing is known of the log p of a text's first token."""
    offsets, at = [], offset
    for entry in entries:
        offsets.append(at)
        at += len(entry["token"])
    return {
        "tokens": [e["token"] for e in entries],
        "token_logprobs": [e.get("logprob") for e in entries],
        "top_logprobs": [_top(e) if "logprob" in e else None for e in entries],
        "text_offset": offsets,
    }


def _top(entry: Mapping[str, Any]) -> dict[str, float]:
    """{token: log p} of the likeliest and of the token itself; of tokens that are written alike the likelier counts."""
    found: dict[str, float] = {entry["token"]: finite(entry["logprob"])}
    for other in entry["top_logprobs"]:
        found[other["token"]] = max(found.get(other["token"], -9999.0), other["logprob"])
    return found


class _Turn:
    """One request's id, and what is written down of it."""

    def __init__(self, service: Service, body: CompletionRequest, key: Key, known: Facts, consent: bool) -> None:
        self.service, self.body, self.key, self.known, self.consent = service, body, key, known, consent
        self.prompts = prompt_texts(body.prompt)
        name = service.backend.name
        self.head = {"id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()), "model": name}
        known.answer = str(self.head["id"])

    async def close(self, texts: Sequence[str], counts: Mapping[str, int]) -> None:
        """Count the tokens; the audit has the answers when this returns."""
        self.service.spend(self.key, self.known, counts["prompt_tokens"], counts["completion_tokens"])
        if self.service.audit is not None:
            await asyncio.to_thread(self.service.audit.add, [self._row(i, text) for i, text in enumerate(texts)])

    def _row(self, index: int, text: str) -> Served:
        prompt = self.prompts[index // (self.body.n or 1)]
        return Served(
            answer=str(self.head["id"]),
            choice=index,
            key=self.key.id,
            model=self.service.backend.name,
            spec="",
            spec_digest="",
            language="",
            messages=[{"role": "user", "content": prompt}],
            facts={},
            response=text,
            action="served",
            tried=1,
            reward=None,
            status="none",
            verdicts=[],
            consent=self.consent,
        )

    # ── streaming ──
    def streamed(self, events: AsyncIterator[Any]) -> Response:
        self.known.stream = True
        return StreamingResponse(told(events), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _end(self, texts: Sequence[str], counts: Mapping[str, int]) -> AsyncIterator[dict[str, Any]]:
        await self.close(texts, counts)
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield {**self.head, "choices": [], "usage": dict(counts)}

    async def passed(self, passed: PassedOn) -> AsyncIterator[dict[str, Any]]:
        async with aclosing(passed.events()) as several:
            async for choices in several:
                self.known.speaks()
                yield {**self.head, "choices": choices}
        async for event in self._end(passed.texts, passed.usage):
            yield event

    async def written(self, local: Local, jobs: Sequence[Job]) -> AsyncIterator[dict[str, Any]]:
        texts, written = [""] * sum(job.choices for job in jobs), 0
        async with aclosing(local.write_each(jobs)) as pieces:
            async for place, piece in pieces:
                self.known.speaks()
                table = None if self.body.logprobs is None else _table(piece.logprobs, len(texts[place]))
                texts[place] += piece.text
                choice = {"index": place, "text": piece.text, "logprobs": table, "finish_reason": piece.finish or None}
                yield {**self.head, "choices": [choice]}
                written += piece.tokens if piece.finish else 0
        async for event in self._end(texts, usage(sum(job.prompt_tokens for job in jobs), written)):
            yield event
