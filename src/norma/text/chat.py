"""Chat messages to token ids, with a mask that says which tokens are trained.

    messages ─→ template ─→ pieces: (its own text | the content of message i), each perhaps within {% generation %} ─→ ids, trained

A stranger's chat template is code: it runs in Jinja's immutable sandbox. What a user typed is text: before rendering each
content is replaced by a private sentinel, so the template's own markers become special tokens and the content never does.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from norma.base.errors import NormaError
from norma.text.tokenizer import CHAT_TEMPLATE, Tokenizer

T = TypeVar("T")

_OPEN, _CLOSE = "\ue000", "\ue001"  # private-use characters around the number of a message
_BEGIN, _END = "\ue002", "\ue003"  # around what {% generation %} encloses
_MARK = re.compile(f"{_OPEN}(\\d+){_CLOSE}|{_BEGIN}|{_END}")

Messages = Sequence[Mapping[str, Any]]
Trained = Literal["answers", "last"] | Sequence[int]
"""Which of the assistant's turns are trained: all, the last, or these, counted from 0, or from the end with -1. Of a message with
``train: false`` nothing is."""


class Piece(NamedTuple):
    """A run of rendered text: of message ``number``, or the template's own (None); ``block`` numbers the {% generation %} around it."""

    text: str
    number: int | None
    block: int | None


class _Generation(Extension):
    """{% generation %}: what the template says the assistant writes (of ``transformers``)."""

    tags = {"generation"}  # noqa: RUF012  the library's own declaration

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (nodes.Output([nodes.TemplateData(mark)]).set_lineno(line) for mark in (_BEGIN, _END))
        return [begin, *body, end]


def _raise(message: str) -> str:
    raise jinja2.TemplateError(message)


@functools.lru_cache(maxsize=16)
def _compile(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation])
    environment.globals["raise_exception"] = _raise
    return environment.from_string(template)


def render(tokenizer: Tokenizer, messages: Messages, *, generation: bool) -> list[tuple[str, int | None]]:
    """The rendered chat as pieces ``(text, message index or None)``; None marks the template's own text."""
    joined: list[tuple[str, int | None]] = []
    for text, index, _ in _pieces(tokenizer, messages, generation):
        if index is None and joined and joined[-1][1] is None:
            joined[-1] = (joined[-1][0] + text, None)
        else:
            joined.append((text, index))
    return joined


def _pieces(tokenizer: Tokenizer, messages: Messages, generation: bool) -> Iterator[Piece]:
    for message in messages:
        if not str(message["role"]).isidentifier():  # a role is written into the template's own text, where markers count
            raise NormaError(f"{message['role']!r} is no role of a chat message", mend="Use system, user or assistant")
    stand_ins = [{**m, "content": f"{_OPEN}{i}{_CLOSE}"} for i, m in enumerate(messages)]
    try:
        text = _compile(tokenizer.chat_template or CHAT_TEMPLATE).render(
            messages=stand_ins,
            add_generation_prompt=generation,
            bos_token=tokenizer.special("bos_token"),
            eos_token=tokenizer.special("eos_token"),
            pad_token=tokenizer.special("pad_token"),
        )
    except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise NormaError(
            f"the chat template cannot render these messages ({error})", where="tokenizer_config.json: chat_template"
        ) from None
    at, blocks, inside = 0, 0, False
    for mark in _MARK.finditer(text):
        block = blocks if inside else None
        if mark.start() > at:
            yield Piece(text[at : mark.start()], None, block)
        if mark[1] is not None:
            yield Piece(str(messages[int(mark[1])]["content"]), int(mark[1]), block)
        else:
            inside, blocks = mark[0] == _BEGIN, blocks + (mark[0] == _BEGIN)
        at = mark.end()
    if at < len(text):
        yield Piece(text[at:], None, blocks if inside else None)


def prompt_ids(tokenizer: Tokenizer, messages: Messages) -> list[int]:
    """Ids of a conversation up to where the assistant begins to speak."""
    ids: list[int] = []
    for text, index in render(tokenizer, messages, generation=True):
        ids += tokenizer.encode(text, special=index is None)
    return ids


def turns(messages: Messages, trained: Trained = "answers") -> set[int]:
    """Numbers of the messages whose words are trained."""
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    if trained == "last":
        answers = answers[-1:]
    elif trained != "answers":
        answers = [answers[int(n)] for n in trained if -len(answers) <= int(n) < len(answers)]
    return {i for i in answers if messages[i].get("train", True)}


def training_row(tokenizer: Tokenizer, messages: Messages, trained: Trained = "answers") -> tuple[list[int], list[bool]]:
    """Ids of a whole conversation and, for each, whether it is trained.

    Trained are the assistant's words, of the turns that ``trained`` says, and the end-of-turn token after them: without that token a
    model never learns to stop. Where the template says itself what the assistant writes ({% generation %}), that is trained.
    """
    pieces, chosen = list(_pieces(tokenizer, messages, generation=False)), turns(messages, trained)
    owner = {p.block: p.number for p in reversed(pieces) if p.block is not None and p.number is not None}  # the first content counts
    marked = any(p.block is not None for p in pieces)
    ids: list[int] = []
    learnt: list[bool] = []
    after = False  # a trained turn's content has just ended
    for text, index, block in pieces:
        piece = tokenizer.encode(text, special=index is None)
        if marked:
            flags = [block is not None and owner.get(block) in chosen] * len(piece)
        elif index is not None:
            flags, after = [index in chosen] * len(piece), index in chosen
        else:
            flags = [False] * len(piece)
            if after and piece and piece[0] == tokenizer.eos_id:
                flags[0] = True
            after = False
        ids += piece
        learnt += flags
    return ids, learnt


def runs(tokenizer: Tokenizer, ids: Sequence[int], marks: Sequence[T]) -> list[tuple[str, T]]:
    """The text of a row in runs of equal marks (whether it is trained, say), the template's markers and all: what people are shown."""
    paired = groupby(zip(ids, marks, strict=True), key=lambda pair: pair[1])
    return [(tokenizer.decode([i for i, _ in run], skip_special=False), mark) for mark, run in paired]
