"""From a checked request to a job, and what a backend makes of jobs. No HTTP here.

ChatRequest ─→ prepare: render the active rules, count, check the room ─→ Job ─→ Backend.write ─→ (choice, Piece), ..., last with a finish

Backends: the model itself with continuous batching (``local``), any author one request at a time (``one_by_one``), another
OpenAI-compatible server (``upstream``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from norma.evaluate.prompts import language_of
from norma.serve.protocol import ApiError, ChatRequest
from norma.spec import Item, Message

if TYPE_CHECKING:
    from norma.serve.ruling import Ruling


@dataclass(frozen=True)
class Job:
    """A request ready to be written: what the model reads, and what the rules are judged by."""

    item: Item  # the conversation as the client sent it
    messages: list[Message]  # with the rules rendered in
    prompt_tokens: int  # 0 where only the upstream server can count
    limit: int
    sampling: dict[str, Any]
    stop: tuple[str, ...] = ()
    choices: int = 1
    top: int | None = None  # likeliest tokens beside each; None: no log-probabilities
    schema: dict[str, Any] | None = None
    prompt: tuple[int, ...] = ()  # ids, where the backend has them
    given: frozenset[str] = frozenset()  # fields that the client set itself
    passed_on: Mapping[str, Any] = field(default_factory=dict)  # fields of the request that an upstream server reads as they are

    def again(self, count: int, first: int, warmth: float) -> Job:
        """``count`` more answers, numbered from ``first``: seeds of their own, and at least so warm that they differ."""
        seed, temperature = self.sampling["seed"] + first, max(self.sampling["temperature"], warmth)
        sampling = self.sampling | {"seed": seed, "temperature": temperature}
        return replace(self, choices=count, sampling=sampling, given=self.given | {"seed", "temperature", "n"})


@dataclass(frozen=True)
class Piece:
    """A part of one answer.

    ``finish``: "" while it goes on; ``tokens``: written so far; ``logprobs``: OpenAI's entries, one a token; ``read``: tokens of the
    prompt, where only now they are known.
    """

    text: str
    finish: str = ""
    tokens: int = 0
    logprobs: tuple[dict[str, Any], ...] = ()
    read: int = 0


Pieces = AsyncGenerator[tuple[int, Piece], None]


class Backend(Protocol):
    """What writes.

    Attributes:
        name: what clients call the model.
        positions: tokens that prompt and answer may have together; None where only the upstream server knows.
        load: requests waiting or running.
        full: whether a further request would be refused.
        lost: whether it can answer nobody any more until the server is started again.
        gifts: what it can do beyond text: ``logprobs``, ``response_format``.
    """

    @property
    def name(self) -> str: ...

    @property
    def positions(self) -> int | None: ...

    @property
    def load(self) -> int: ...

    @property
    def full(self) -> bool: ...

    @property
    def lost(self) -> bool: ...

    @property
    def gifts(self) -> frozenset[str]: ...

    def patience(self) -> int: ...

    def measure(self, messages: Sequence[Message]) -> tuple[int, tuple[int, ...]]:
        """Tokens of a conversation (0: unknown) and their ids (where they are known). Called from any thread."""

    def write(self, job: Job) -> Pieces: ...

    def close(self) -> None: ...


@dataclass
class Answer:
    """One whole answer."""

    text: str = ""
    finish: str = "stop"
    tokens: int = 0
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    read: int = 0

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.logprobs += piece.logprobs
        self.tokens, self.read = max(self.tokens, piece.tokens), max(self.read, piece.read)
        self.finish = piece.finish or self.finish


async def whole(backend: Backend, job: Job) -> list[Answer]:
    """All answers of a job."""
    answers = [Answer() for _ in range(job.choices)]
    async with aclosing(backend.write(job)) as pieces:
        async for index, piece in pieces:
            answers[index].add(piece)
    return answers


def prepare(request: ChatRequest, backend: Backend, ruling: Ruling | None, most: int | None = None) -> Job:
    """``most``: tokens that this caller may ask for. Raises ApiError when the conversation does not fit the model."""
    messages = request.conversation()
    user = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
    item = Item("request", tuple(messages), language=request.norma.language or language_of(user), facts=request.norma.facts)
    shown = messages if ruling is None else ruling.show(messages, item)
    count, prompt = backend.measure(shown)
    form = request.response_format
    limit = bounded(request.limit(), most)
    if backend.positions is not None:
        limit = room(count, limit, backend.positions, "the conversation", "with its rules" if ruling else "", "messages")
    return Job(
        item,
        shown,
        count,
        limit,
        request.sampling(limit),
        tuple(request.stop or ()),
        request.n or 1,
        request.top(),
        None if form is None else form.wanted(),
        prompt,
        frozenset(request.model_fields_set) | (frozenset() if most is None else {"max_tokens"}),
        {} if form is None else {"response_format": form.model_dump(by_alias=True, exclude_none=True)},
    )


def bounded(limit: int, most: int | None) -> int:
    if most is not None and limit > most:
        return most
    return limit


def room(count: int, limit: int, positions: int, what: str, how: str, param: str) -> int:
    """How many of ``limit`` tokens fit behind ``count``. Raises ApiError where none do."""
    if count >= positions:
        with_rules = f" {how}" if how else ""
        raise ApiError(
            400,
            f"{what} has {count} tokens{with_rules}; this model reads and writes {positions} in all",
            param=param,
            code="context_length_exceeded",
        )
    return min(limit, positions - count)


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
