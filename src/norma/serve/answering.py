"""From a checked request to pieces of text, and from finished answers to verdicts. No HTTP here.

ChatRequest ─→ prepare: render the active rules, count, check the room ─→ Job
Job ─→ write: piece, piece, ..., End(finish reason, tokens)   per choice, stop strings cut
Job, answers ─→ judge ─→ the `norma` field: spec, active rules, verdicts
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from norma.evaluate.prompts import language_of, wording_for
from norma.serve.author import Author
from norma.serve.protocol import ApiError, ChatRequest
from norma.spec import Item, Message

if TYPE_CHECKING:
    from norma.spec import Spec


@dataclass(frozen=True)
class Job:
    """A request ready to be written: what the model reads, and what the rules are judged by."""

    item: Item  # the conversation as the client sent it
    messages: list[Message]  # with the rules rendered in
    prompt_tokens: int
    limit: int
    sampling: dict[str, Any]
    stop: tuple[str, ...]
    choices: int


@dataclass(frozen=True)
class End:
    """The end of one answer."""

    finish: str
    tokens: int


def prepare(request: ChatRequest, author: Author, spec: Spec | None) -> Job:
    """Raises ApiError when the conversation does not fit the model."""
    messages = request.conversation()
    user = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    item = Item("request", tuple(messages), language=request.norma.language or language_of(user), facts=request.norma.facts)
    shown = messages if spec is None else spec.render(messages, item, language=wording_for(spec.languages, item.language))
    count = author.prompt_tokens(shown)
    if count >= author.positions:
        raise ApiError(
            400,
            f"the conversation has {count} tokens with its rules; this model reads and writes {author.positions} in all",
            param="messages",
            code="context_length_exceeded",
        )
    limit = min(request.limit(), author.positions - count)
    temperature = request.temperature or 0.0
    seed = random.getrandbits(31) if request.seed is None else request.seed % 2**31
    sampling = {
        "max_new_tokens": limit,
        "temperature": temperature,
        "top_p": request.top_p or 1.0,
        "top_k": request.top_k or 0,
        "seed": seed,
    }
    return Job(item, shown, count, limit, sampling, tuple(request.stop or ()), request.n or 1)


def write(job: Job, author: Author) -> Iterator[tuple[int, str | End]]:
    """Every choice in turn: (index, piece), ..., (index, End)."""
    for index in range(job.choices):
        text, stopped = "", False
        for piece, cut in until_stop(author.stream(job.messages, **(job.sampling | {"seed": job.sampling["seed"] + index})), job.stop):
            text, stopped = text + piece, cut
            if piece:
                yield index, piece
        tokens = author.tokens(text)
        yield index, End("length" if tokens >= job.limit and not stopped else "stop", tokens)


def until_stop(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """(text, whether a stop string was met), text that may turn out to be the beginning of a stop string held back."""
    held = ""
    for piece in pieces:
        held += piece
        found = min((at for stop in stops if (at := held.find(stop)) >= 0), default=-1)
        if found >= 0:
            yield held[:found], True
            return
        keep = max((n for stop in stops for n in range(1, len(stop)) if held.endswith(stop[:n])), default=0)
        ready, held = held[: len(held) - keep], held[len(held) - keep :]
        yield ready, False
    yield held, False


def judge(job: Job, answers: Sequence[str], spec: Spec) -> dict[str, Any]:
    """The ``norma`` field: which rules were active for this conversation, and each checker's verdict on each answer."""
    resolution = spec.resolve(job.item)
    verdicts = [{"choice": i, **v.row()} for i, text in enumerate(answers) for v in spec.verdicts(job.item, text, "report")]
    rules = {rule: {"status": s.status.value, "reason": s.reason, "by": s.by} for rule, s in resolution.statuses.items()}
    about = {"spec": spec.id, "version": spec.version, "digest": spec.digest, "language": job.item.language}
    return {**about, "active": list(resolution.active), "rules": rules, "verdicts": verdicts}
