"""Raw texts for another server: plain completions and embeddings go through as they stand, within this server's keys and limits.

    CompletionRequest, EmbeddingRequest (checked) ─→ what the client set ─→ Upstream ─→ its choices or vectors, under our id and name

No spec is applied, as with a model in this process. Unlike chat, an answer is streamed only where the client wants it so:
log-probabilities of a prompt (``echo``) come whole from most servers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from norma.base.errors import NormaError
from norma.serve.answering import bounded
from norma.serve.chat import as_api, sse
from norma.serve.protocol import ApiError, usage
from norma.serve.upstream import Spent, Upstream
from norma.serve.worker import Busy

PASSED = ("prompt", "max_tokens", "logprobs", "echo", "temperature", "top_p", "top_k", "seed", "stop", "n")


class PassedOn:
    """One completion request's way through another server.

    Attributes:
        texts: what the other server wrote, choice by choice.
        usage: its count of tokens; zeros where it gives none.

    Log-probabilities of a prompt that the other server does not give are an error: to a client that scores texts, those of the answer
    alone would be wrong numbers.
    """

    def __init__(self, upstream: Upstream, asked: Mapping[str, Any], prompts: int, most: int | None) -> None:
        """``asked``: what the client set; ``most``: tokens that it may ask for."""
        self.upstream = upstream
        self.body = {"model": upstream.name} | {name: asked[name] for name in PASSED if asked.get(name) is not None}
        if most is not None:
            self.body["max_tokens"] = bounded(self.body.get("max_tokens", most), most)
        self.texts = [""] * (prompts * (asked.get("n") or 1))
        self._spent = Spent()

    @property
    def usage(self) -> dict[str, int]:
        return usage(self._spent.read, self._spent.written)

    async def whole(self) -> list[Mapping[str, Any]]:
        """The other server's choices."""
        found = await self.upstream.whole("completions", self.body)
        choices = self._heard(found)
        if len(choices) != len(self.texts):
            raise ApiError(502, "the upstream server sent more or fewer choices than were asked for", code="upstream_error")
        if self.body.get("echo") and "logprobs" in self.body and not all(map(_begins_with_prompt, choices)):
            raise ApiError(501, "the upstream server gives no log-probabilities of prompts ('echo')", param="echo", code="upstream_refused")
        return choices

    async def events(self) -> AsyncGenerator[list[Mapping[str, Any]], None]:
        """Choices as they come."""
        body, finished = {**self.body, "stream": True, "stream_options": {"include_usage": True}}, set()
        async with aclosing(self.upstream.events("completions", body)) as events:
            async for event in events:
                choices = self._heard(event)
                finished |= {c.get("index", 0) for c in choices if c.get("finish_reason")}
                if choices:
                    yield choices
        if len(finished) < len(self.texts):
            raise ApiError(502, "the upstream server ended its answer too early", code="upstream_error")

    def _heard(self, event: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        choices = event.get("choices") or []
        for choice in choices:
            index = choice.get("index", 0) if isinstance(choice, dict) else -1
            if index not in range(len(self.texts)):
                raise ApiError(502, "the upstream server sent a choice that was not asked for", code="upstream_error")
            self.texts[index] += str(choice.get("text") or "")
        self._spent.hear(event)
        return choices


def _begins_with_prompt(choice: Mapping[str, Any]) -> bool:
    """Whether the table of log-probabilities begins with a prompt: of its first token nobody can say how likely it was."""
    known = (choice.get("logprobs") or {}).get("token_logprobs")
    return isinstance(known, list) and bool(known) and known[0] is None


async def embeddings(upstream: Upstream, asked: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
    """(the other server's vectors as it sent them, tokens read)."""
    body = {"model": upstream.name} | {k: asked[k] for k in ("input", "encoding_format", "dimensions") if asked.get(k) is not None}
    found = await upstream.whole("embeddings", body)
    data, wanted = found.get("data"), 1 if isinstance(asked["input"], str) else len(asked["input"])
    if not isinstance(data, list) or len(data) != wanted or not all(isinstance(d, dict) and "embedding" in d for d in data):
        raise ApiError(502, "the upstream server did not send one vector for each text", code="upstream_error")
    read = (found.get("usage") or {}).get("prompt_tokens", 0)
    return data, read if isinstance(read, int) else 0


async def told(events: AsyncIterator[Any]) -> AsyncIterator[str]:
    """Events as they go out; an error that comes after the status line is the last of them."""
    try:
        async for event in events:
            yield sse(event)
        yield "data: [DONE]\n\n"
    except (NormaError, ApiError, Busy) as error:
        yield sse(as_api(error).body())


def prompt_texts(prompt: Any) -> Sequence[str]:
    """Each prompt as the audit keeps it; ids that only the other server can read stay numbers."""
    return [p if isinstance(p, str) else " ".join(map(str, p)) for p in several(prompt)]


def several(prompt: Any) -> list[Any]:
    """The prompts of a request, each a text or ids."""
    return prompt if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int) else [prompt]
