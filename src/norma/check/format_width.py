"""How wide a text is: columns of a terminal, in which a Chinese character takes two. Joining words does not make a text narrower."""

from __future__ import annotations

import unicodedata

from pydantic import Field, field_validator

from norma.check.program import Outcome, Params, program
from norma.check.segment import family
from norma.spec.types import Item


class WidthParams(Params):
    """How wide an answer may be."""

    columns: dict[str, int] = Field(
        default_factory=lambda: {"en": 600, "zh": 400}, description="Most columns by language (en, zh), white space not counted."
    )

    @field_validator("columns")
    @classmethod
    def _columns(cls, value: dict[str, int]) -> dict[str, int]:
        if set(value) != {"en", "zh"} or min(value.values()) < 1:
            raise ValueError("give the most columns for en and for zh")
        return value


def columns(text: str) -> int:
    """Columns that ``text`` takes, white space not counted: two for wide and full-width characters, else one."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text if not c.isspace())


@program("display_width", WidthParams, languages=("en", "zh"))
def display_width(item: Item, text: str, params: WidthParams) -> Outcome:
    """Not more columns than allowed; score: falls evenly to 0 at twice the bound."""
    most, found = params.columns[family(item.language)], columns(text)
    return Outcome(min(1.0, max(0.0, 2 - found / most)), (), f"{found} columns, at most {most}", float(most - found))
