"""How much is said, in words, characters, sentences, paragraphs or lines, with other bounds for other languages."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from norma.check.program import Outcome, Params, program
from norma.check.segment import family, sentences, units
from norma.spec.types import Item

Unit = Literal["words", "characters", "sentences", "paragraphs", "lines"]


class Bounds(BaseModel):
    """A unit with its bounds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: Unit = Field(default="words", description="words (a Chinese character is one), characters, sentences, paragraphs or lines.")
    min: int = Field(default=0, ge=0, description="Fewest.")
    max: int | None = Field(default=None, ge=0, description="Most.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min == 0 and self.max is None:
            raise ValueError("at least one of min and max is needed")
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) is greater than max ({self.max})")
        return self


class AmountParams(Params):
    """Bounds by language."""

    languages: dict[str, Bounds] = Field(min_length=1, description="Language, or * for every other one, to unit, min and max.")


def _words(text: str) -> int:
    return sum(unit.weight for unit in units(text))


def _characters(text: str) -> int:
    """Letters, digits and marks; Chinese counts so, white space never."""
    return sum(not c.isspace() for c in text)


def _sentences(text: str) -> int:
    return len(sentences(text))


def _paragraphs(text: str) -> int:
    return sum(bool(part.strip()) for part in re.split(r"\n\s*\n", text))


def _lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())


def _count(unit: Unit) -> Callable[[str], int]:
    if unit == "words":
        return _words
    if unit == "characters":
        return _characters
    if unit == "sentences":
        return _sentences
    return _paragraphs if unit == "paragraphs" else _lines


@program("amount", AmountParams)
def amount(item: Item, text: str, params: AmountParams) -> Outcome:
    """As many words, characters, sentences, paragraphs or lines as the item's language allows; score: how near the count comes."""
    bounds = next((b for tag, b in params.languages.items() if family(tag) == family(item.language)), params.languages.get("*"))
    if bounds is None:
        raise LookupError(f"no bounds for {item.language}, only for {', '.join(sorted(params.languages))}")
    count = _count(bounds.unit)(text)
    note = f"{count} {bounds.unit}"
    if count < bounds.min:
        return Outcome(count / bounds.min, (), f"{note}, at least {bounds.min}", float(count - bounds.min))
    if bounds.max is not None and count > bounds.max:
        return Outcome(bounds.max / count, (), f"{note}, at most {bounds.max}", float(bounds.max - count))
    ends = [count - bounds.min] if bounds.max is None else [count - bounds.min, bounds.max - count]
    return Outcome(1.0, (), note, float(min(ends)))
