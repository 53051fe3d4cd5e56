"""How much is said and how it ends: sentences, words, characters, the final full stop."""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, model_validator

from norma.check.program import Outcome, Params, program
from norma.check.segment import Unit, is_han, sentences, units
from norma.spec.types import Item, Spans


class SentenceParams(Params):
    """How many sentences an answer may have."""

    min: int = Field(default=1, ge=0, description="Fewest sentences.")
    max: int = Field(default=1, ge=1, description="Most sentences.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is greater than max ({self.max})")
        return self


@program("sentences", SentenceParams, languages=("en", "zh"))
def count_sentences(item: Item, text: str, params: SentenceParams) -> Outcome:
    """The number of sentences lies between min and max; score: the share of the sentences that is allowed."""
    spans = sentences(text)
    count = len(spans)
    if count > params.max:
        return Outcome(params.max / count, tuple(spans[params.max :]), f"{count} sentences, at most {params.max}", params.max - count)
    if count < params.min:
        return Outcome(count / params.min, (), f"{count} sentences, at least {params.min}", count - params.min)
    return Outcome(1.0, (), f"{count} sentences", float(min(params.max - count, count - params.min)))


class LengthParams(Params):
    """Bounds on words and on Chinese characters, counted apart: a Chinese text has no spaces to count words by."""

    min_words: int = Field(default=0, ge=0, description="Fewest words; a Chinese character counts as one here.")
    max_words: int | None = Field(default=None, ge=1, description="Most words of spaced scripts.")
    max_characters: int | None = Field(default=None, ge=1, description="Most Chinese characters.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_words is None and self.max_characters is None and not self.min_words:
            raise ValueError("at least one of min_words, max_words and max_characters is needed")
        for name, bound in (("max_words", self.max_words), ("max_characters", self.max_characters)):
            if bound is not None and self.min_words > bound:
                raise ValueError(f"min_words ({self.min_words}) is greater than {name} ({bound})")
        return self


@program("length", LengthParams, languages=("en", "zh"))
def length(item: Item, text: str, params: LengthParams) -> Outcome:
    """Not more words, nor more Chinese characters, than allowed; score: falls evenly to 0 at twice the bound."""
    found = units(text)
    words = sum(u.weight for u in found if not u.han)
    characters = sum(u.weight for u in found if u.han)
    said = f"{words} words" + (f", {characters} Chinese characters" if characters else "")
    score, margin = 1.0, math.inf
    evidence: Spans = ()
    for count, bound, han in ((words, params.max_words, False), (characters, params.max_characters, True)):
        if bound is None:
            continue
        margin = min(margin, float(bound - count))
        if count > bound:
            score = min(score, max(0.0, 1 - (count - bound) / bound))
            evidence = ((_position_after(found, bound, han), len(text)),)
    if params.min_words:
        margin = min(margin, float(words + characters - params.min_words))
        if words + characters < params.min_words:
            score = min(score, (words + characters) / params.min_words)
    return Outcome(score, evidence, said, margin)


def _position_after(found: list[Unit], bound: int, han: bool) -> int:
    """Where the first word (or character) beyond ``bound`` begins."""
    count = 0
    for unit in found:
        if unit.han == han:
            count += unit.weight
            if count > bound:
                return unit.start
    raise AssertionError("nothing lies beyond the bound")


class EndingParams(Params):
    """How an answer ends."""

    marks: tuple[str, ...] = Field(default=(".", "。"), min_length=1, description="Marks that may end an answer.")

    @model_validator(mode="after")
    def _marks(self) -> Self:
        if any(not mark.strip() for mark in self.marks):
            raise ValueError("an end mark is empty")
        return self


_CLOSING = ")]）】」』”’\"'"
_NOT_BEFORE_STOP = ".。…,，;；:：!！?？-、"


@program("ends_with_stop", EndingParams)
def ends_with_stop(item: Item, text: str, params: EndingParams) -> Outcome:
    """The answer ends with one full stop (half-width after a word, full-width after a Chinese character); an ellipsis is none."""
    end = len(text.rstrip())
    body = text[:end].rstrip(_CLOSING)
    last = (max(0, end - 1), end)
    mark = next((m for m in params.marks if body.endswith(m)), None)
    if mark is None:
        return Outcome(0.0, (last,), f"ends with {text[end - 1]!r}")
    before = body[: -len(mark)]
    if not before or before[-1].isspace() or before[-1] in _NOT_BEFORE_STOP:
        return Outcome(0.0, (last,), "the full stop follows no word")
    if mark == "." and is_han(before[-1]):
        return Outcome(0.5, (last,), "a half-width stop after a Chinese character")
    return Outcome(1.0, (), f"ends with {mark!r}")
