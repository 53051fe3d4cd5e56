"""Who answers, and how the answers survive a kill.

    items (messages as they are sent) ─→ Answerer ─→ Answer (text, or the error that stands in its place)
                                           ├─ LocalAnswerer     a model folder on this machine, in fixed batches
                                           └─ EndpointAnswerer  any OpenAI-compatible server (norma.evaluate.endpoint)
    journaled(items, answerer, journal) ─→ the same answers, each fsynced to answers.jsonl before it is used

A failed request is an Answer with ``error`` and without text: it can become an error verdict, never an empty answer.
This module loads no torch: a compliance check of a remote model needs none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from norma.base.errors import NormaError
from norma.base.files import disk_errors, to_json
from norma.base.hashing import digest
from norma.spec import Item

LOCAL_BATCH = 16


@dataclass(frozen=True)
class Options:
    """How to write an answer; 0 for ``temperature`` is greedy, 0 for ``top_k`` is off."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = [
            text
            for bad, text in (
                (self.max_new_tokens < 1, "max_new_tokens must be at least 1"),
                (not 0 <= self.temperature <= 100, "temperature must be between 0 and 100"),
                (not 0 < self.top_p <= 1, "top_p must be above 0 and at most 1"),
                (self.top_k < 0, "top_k must not be negative"),
            )
            if bad
        ]
        if wrong:
            raise NormaError(wrong[0])


@dataclass(frozen=True)
class Answer:
    """One answer to one item: either ``text`` or ``error`` is set. ``finish`` is ``stop``, ``length`` or "" where unknown."""

    item: str
    text: str | None
    error: str | None = None
    finish: str = ""
    tokens: int | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.error is None):
            raise ValueError("an answer holds a text or an error, and not both")


def ignore(answer: Answer) -> None:
    """Do nothing with an answer as it arrives."""


class Answerer(Protocol):
    """Answers items whose messages are sent as they are.

    Attributes:
        name: for people: the model folder's or the served model's name.
        identity: digest of everything an answer depends on besides the messages; the journal's key.
        batch: how many items are asked at once; whole batches are asked again where ``atomic``.
        atomic: whether an answer depends on its batch (a local model draws from one random stream a batch).
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    @property
    def batch(self) -> int: ...

    @property
    def atomic(self) -> bool: ...

    def answer(self, items: Sequence[Item], each: Callable[[Answer], None] = ignore) -> list[Answer]:
        """Answers in the order of ``items``; ``each`` is called, in this thread, as soon as one arrives."""


class Chats(Protocol):
    """The part of ``norma.load(path)`` that is used here."""

    name: str

    def chat(self, conversations: Any, **sampling: Any) -> list[str]: ...

    def generate(self, prompts: Any, **sampling: Any) -> list[str]: ...


@dataclass
class LocalAnswerer:
    """A model on this machine. ``weights`` is a digest of its folder; ``raw`` continues the last message's text instead of answering it."""

    model: Chats
    options: Options = field(default_factory=Options)
    weights: str = ""
    batch: int = LOCAL_BATCH
    atomic: bool = True
    raw: bool = False

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def identity(self) -> str:
        return digest({"local": self.name, "weights": self.weights, "options": asdict(self.options), "batch": self.batch, "raw": self.raw})

    def answer(self, items: Sequence[Item], each: Callable[[Answer], None] = ignore) -> list[Answer]:
        # Each batch has a seed of its own: with one for all, the rows of different batches would share their draws.
        seed = int(digest([self.options.seed, [item.id for item in items]])[:8], 16)
        sampling = asdict(self.options) | {"seed": seed}
        try:
            texts = self._write(items, sampling)
            answers = [Answer(item.id, text) for item, text in zip(items, texts, strict=True)]
        except NormaError:
            # One prompt that cannot be read (too long, say) must not take its neighbours along.
            answers = [self._alone(item, sampling) for item in items]
        for answer in answers:
            each(answer)
        return answers

    def _alone(self, item: Item, sampling: Mapping[str, Any]) -> Answer:
        try:
            return Answer(item.id, self._write([item], sampling)[0])
        except NormaError as error:
            return Answer(item.id, None, str(error))

    def _write(self, items: Sequence[Item], sampling: Mapping[str, Any]) -> list[str]:
        if self.raw:
            return self.model.generate([item.messages[-1]["content"] for item in items], **sampling)
        return self.model.chat([list(item.messages) for item in items], **sampling)


class Journal:
    """``answers.jsonl``: every answer, written and fsynced before it is used. A line cut by a kill is dropped on opening."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Answer] = {}
        whole = 0
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                for line in path.read_bytes().splitlines(keepends=True):
                    if not line.endswith(b"\n") or not self._take(line):
                        break
                    whole += len(line)
            self._handle: IO[bytes] = path.open("ab")
            self._handle.truncate(whole)

    def _take(self, line: bytes) -> bool:
        try:
            row = json.loads(line)
            key, answer = row["key"], Answer(row["item"], row["response"], row["error"], row["finish"], row["tokens"])
        except (ValueError, KeyError, TypeError):
            return False
        if answer.error is None:  # a failed request is asked again
            self.known[key] = answer
        return True

    def write(self, key: str, answer: Answer, item: Item) -> None:
        row = {
            "key": key,
            "item": answer.item,
            "messages": list(item.messages),
            "response": answer.text,
            "error": answer.error,
            "finish": answer.finish,
            "tokens": answer.tokens,
        }
        with disk_errors(self.path):
            self._handle.write(to_json(row).encode() + b"\n")
            self._handle.flush()
            os.fsync(self._handle.fileno())
        if answer.error is None:
            self.known[key] = answer

    def close(self) -> None:
        self._handle.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def missing(items: Sequence[Item], answerer: Answerer, journal: Journal) -> list[Item]:
    """The items that the journal holds no answer of this answerer to."""
    return [item for item in items if _key(answerer.identity, item) not in journal.known]


def _key(identity: str, item: Item) -> str:
    return digest([identity, item.id, list(item.messages)])


def journaled(
    items: Sequence[Item], answerer: Answerer, journal: Journal, progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Answer]:
    """Answers to all items in order: those in the journal are taken from it, the others are asked for and written first.

    Batches are cut from the whole list, so that a check that was killed asks the same batches as an unbroken one.
    ``progress`` gets (answers so far, all).
    """
    identity = answerer.identity
    keys = {item.id: _key(identity, item) for item in items}
    answers: dict[str, Answer] = {}
    for batch in _batches(items, answerer.batch):
        left = [item for item in batch if keys[item.id] not in journal.known]
        by_id = {item.id: item for item in batch}
        if left:

            def keep(answer: Answer, by_id: Mapping[str, Item] = by_id) -> None:
                journal.write(keys[answer.item], answer, by_id[answer.item])
                answers[answer.item] = answer
                progress(len(answers), len(items))

            answerer.answer(batch if answerer.atomic else left, keep)
        for item in batch:
            answers.setdefault(item.id, journal.known.get(keys[item.id], Answer(item.id, None, "no answer came back")))
        progress(len(answers), len(items))
    return [answers[item.id] for item in items]


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
