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
    present: bool = Field(default=True, description="true: the answer must open politely; false: it must not, in any language.")

    def anywhere(self) -> tuple[str, ...]:
        """The openings of all languages."""
        return tuple(phrase for tag in OPENINGS for phrase in self.phrases.get(tag) or OPENINGS[tag])


@program("polite_opening", OpeningParams, languages=("en", "zh"), catches=("boilerplate", "other_language"))
def polite_opening(item: Item, text: str, params: OpeningParams) -> Outcome:
    """The answer opens politely in the language of the question and goes on; score .5: the opening is run into the sentence."""
    if not params.present:
        return _plain(text, params)
    language = family(item.language)
    phrases = params.phrases.get(language) or OPENINGS[language]
    lead = len(text) - len(text.lstrip(_LEADING))
    phrase = opening_phrase(text[lead:], phrases)
    if phrase is None:
        return Outcome(0.0, (), "no polite opening")
    end = lead + len(phrase)
    rest = text[end:].lstrip(" ")
    marked = rest[:1] != "" and rest[0] in _MARKS[language]
    if len(units(without_openings(rest, phrases))) < params.min_rest:
        return Outcome(0.0, ((lead, end),), "nothing follows the opening")
    if not marked:
        return Outcome(0.5, ((lead, end),), f"no mark after the opening '{phrase}'")
    return Outcome(1.0, ((lead, end),), f"opens with '{phrase}'")


def _plain(text: str, params: OpeningParams) -> Outcome:
    """The wish for no opening; score .5: a word that is one begins the sentence (sure signs, of course not), without a mark."""
    lead = len(text) - len(text.lstrip(_LEADING))
    phrase = opening_phrase(text[lead:], params.anywhere())
    if phrase is None:
        return Outcome(1.0)
    span = (lead, lead + len(phrase))
    marked = text[span[1] :].lstrip(" ")[:1] in (*_MARKS["en"], *_MARKS["zh"], "")
    return Outcome(0.0 if marked else 0.5, (span,), f"opens with '{phrase}'")


def without_openings(text: str, phrases: tuple[str, ...]) -> str:
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
