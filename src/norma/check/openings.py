"""Courtesy at the beginning: the answer opens with a polite phrase in the language of the question, and then answers."""

from __future__ import annotations

import re

from pydantic import Field

from norma.check.lexicon import OPENINGS
from norma.check.program import Outcome, Params, program
from norma.check.segment import family, units
from norma.spec.types import Item

_MARKS = {"en": ":,!.—–;", "zh": "：:，,！!。~～；"}
_LEADING = ' \t\n*_"“「'


class OpeningParams(Params):
    """Which openings are polite."""

    phrases: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Openings by language (en, zh), in place of the shipped ones."
    )
    min_rest: int = Field(default=1, ge=1, description="Words (or Chinese characters) that must follow the opening.")


@program("polite_opening", OpeningParams, languages=("en", "zh"), catches=("boilerplate", "other_language"))
def polite_opening(item: Item, text: str, params: OpeningParams) -> Outcome:
    """The answer opens politely in the language of the question and goes on; score .5: the opening is run into the sentence."""
    language = family(item.language)
    phrases = params.phrases.get(language) or OPENINGS[language]
    lead = len(text) - len(text.lstrip(_LEADING))
    phrase = opening_phrase(text[lead:], phrases)
    if phrase is None:
        return Outcome(0.0, (), "no polite opening")
    end = lead + len(phrase)
    rest = text[end:].lstrip(" ")
    marked = rest[:1] != "" and rest[0] in _MARKS[language]
    if len(units(_without_openings(rest, phrases))) < params.min_rest:
        return Outcome(0.0, ((lead, end),), "nothing follows the opening")
    if not marked:
        return Outcome(0.5, ((lead, end),), f"no mark after the opening '{phrase}'")
    return Outcome(1.0, ((lead, end),), f"opens with '{phrase}'")


def _without_openings(text: str, phrases: tuple[str, ...]) -> str:
    """``text`` without further openings at its beginning: "Of course, happy to help!" answers nothing."""
    while True:
        text = text.lstrip(_LEADING + _MARKS["en"] + _MARKS["zh"])
        further = opening_phrase(text, phrases)
        if further is None:
            return text
        text = text[len(further) :]


def opening_phrase(text: str, phrases: tuple[str, ...]) -> str | None:
    """The longest of ``phrases`` with which ``text`` begins, as it is written there."""
    lower = text.lower()
    for phrase in sorted(phrases, key=len, reverse=True):
        if lower.startswith(phrase.lower()):
            follows = text[len(phrase) : len(phrase) + 1]
            if not (phrase[-1].isascii() and re.match(r"[A-Za-z0-9_'’-]", follows)):
                return text[: len(phrase)]
    return None
