"""Chat messages to token ids, with a mask that says which tokens are trained.

A stranger's chat template is code: it runs in Jinja's immutable sandbox. What a user typed is text: before rendering each
content is replaced by a private sentinel, so the template's own markers become special tokens and the content never does.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from norma.base.errors import NormaError
from norma.text.tokenizer import CHAT_TEMPLATE, Tokenizer

_OPEN, _CLOSE = "\ue000", "\ue001"  # private-use characters around the number of a message


def _raise(message: str) -> str:
    raise jinja2.TemplateError(message)


@functools.lru_cache(maxsize=16)
def _compile(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = _raise
    return environment.from_string(template)


def render(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], *, generation: bool) -> list[tuple[str, int | None]]:
    """The rendered chat as pieces ``(text, message index or None)``; None marks the template's own text."""
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
    pieces: list[tuple[str, int | None]] = []
    for part in text.split(_OPEN):
        head, close, tail = part.partition(_CLOSE)
        if close:
            index = int(head)
            pieces.append((str(messages[index]["content"]), index))
            head = tail
        if head:
            pieces.append((head, None))
    return pieces


def prompt_ids(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Ids of a conversation up to where the assistant begins to speak."""
    ids: list[int] = []
    for text, index in render(tokenizer, messages, generation=True):
        ids += tokenizer.encode(text, special=index is None)
    return ids


def training_row(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[bool]]:
    """Ids of a whole conversation and, for each, whether it is trained.

    Trained are the assistant's words and the end-of-turn token after them: without that token a model never learns to stop.
    """
    ids: list[int] = []
    trained: list[bool] = []
    after_assistant = False
    for text, index in render(tokenizer, messages, generation=False):
        piece = tokenizer.encode(text, special=index is None)
        if index is not None:
            after_assistant = messages[index]["role"] == "assistant"
            flags = [after_assistant] * len(piece)
        else:
            flags = [False] * len(piece)
            if after_assistant and piece and piece[0] == tokenizer.eos_id:
                flags[0] = True
            after_assistant = False
        ids += piece
        trained += flags
    return ids, trained
