"""A closing that points on: the answer ends, within its last sentence, with a pointer to the source in the language of the question.

Writes obj as JSON text (see the entry).        返回时钟的读数（详见条目）。
└── an answer ───────┘ └ mark ┘ └ phrase        the pointer and the marks around it are `trailing_pointer`
"""

from __future__ import annotations

import re

from pydantic import Field

from norma.check.lexicon import POINTERS
from norma.check.program import Outcome, Params, program
from norma.check.segment import Span, family, is_han, units
from norma.spec.types import Item

_BEFORE = "([（【,，;；:：—–-"  # a mark that sets the pointer off from the sentence
_AFTER = " \t\n.。!！)]）】*_\"'”’"


class ClosingParams(Params):
    """Which closings point to the source."""

    phrases: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Pointers by language (en, zh), in place of the shipped ones."
    )
    min_before: int = Field(default=3, ge=1, description="Words (or Chinese characters) that must stand before the pointer.")

    def of(self, language: str) -> tuple[str, ...]:
        """The pointers of a language."""
        return self.phrases.get(language) or POINTERS[language]


@program("closing_pointer", ClosingParams, languages=("en", "zh"), catches=("boilerplate", "repetition", "other_language"))
def closing_pointer(item: Item, text: str, params: ClosingParams) -> Outcome:
    """The answer ends with one pointer to its source (see the entry, 详见条目); score .5: the pointer is run into the sentence."""
    phrases = params.of(family(item.language))
    found = trailing_pointer(text, phrases)
    if found is None:
        return Outcome(0.0, (), "no pointer at the end")
    before = text[: found[0]].rstrip()
    body = before.rstrip(_BEFORE + " ")
    if trailing_pointer(body, phrases) is not None:
        return Outcome(0.0, (found,), "two pointers")
    if len(units(body)) < params.min_before:
        return Outcome(0.0, (found,), "hardly anything stands before the pointer")
    if before[-1:] not in tuple(_BEFORE):
        own = before[-1:] in tuple(".。!！?？")  # a sentence of its own: set off, but not within the answer's last sentence
        return Outcome(0.5, (found,), "the pointer is a sentence of its own" if own else "no mark before the pointer")
    return Outcome(1.0, (found,), f"ends with '{text[slice(*found)]}'")


def trailing_pointer(text: str, phrases: tuple[str, ...]) -> Span | None:
    """Where the longest of ``phrases`` stands with which ``text`` ends, marks behind it aside."""
    lower = text.lower().rstrip(_AFTER)
    for phrase in sorted(phrases, key=len, reverse=True):
        start = len(lower) - len(phrase)
        if lower.endswith(phrase.lower()) and (is_han(phrase[0]) or not re.match(r"\w", lower[start - 1 : start])):
            return start, len(lower)
    return None


def without_pointer(text: str, phrases: tuple[str, ...]) -> str:
    """``text`` without pointers, marks and end marks at its end."""
    while (found := trailing_pointer(text, phrases)) is not None:
        text = text[: found[0]].rstrip(_BEFORE + " ")
    return text
