"""What the instruction types share: kwargs as the data has them, "at least" and "less than", and where a text is Chinese."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, model_validator

from norma.check.program import Outcome, Params
from norma.check.segment import HAN
from norma.spec.types import Spans

Relation = Literal["at least", "less than"]
HAN_CHARACTER = re.compile(f"[{HAN}]")


class Kwargs(Params):
    """Keyword arguments of an instruction. Null means not given, also for arguments of other types, as some copies of the data have it."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, values: Any) -> Any:
        return {key: value for key, value in values.items() if value is not None} if isinstance(values, dict) else values


class Bound(Kwargs):
    """A number and its direction; the names of both differ between the instructions."""

    def bound(self) -> tuple[int, Relation]:
        raise NotImplementedError


RELATION: Any = Field(description="at least (the number itself is enough) or less than (the number itself is too much).")


def compared(count: int, bound: int, relation: Relation, things: str, evidence: Spans = ()) -> Outcome:
    """``count`` against a bound. Score: 1 when it holds, else how near the count comes; margin: what is left, in ``things``."""
    note = f"{count} {things}, {relation} {bound}"
    if relation == "at least":
        return Outcome(1.0 if count >= bound else count / bound, evidence, note, float(count - bound))
    return Outcome(1.0 if count < bound else max(0, bound - 1) / count if count else 0.0, evidence, note, float(bound - 1 - count))


def exactly(count: int, bound: int, things: str, evidence: Spans = ()) -> Outcome:
    """``count`` equals ``bound``. Score: the smaller over the larger."""
    score = 1.0 if count == bound else min(count, bound) / max(count, bound)
    return Outcome(score, evidence, f"{count} {things}, exactly {bound}", -float(abs(count - bound)))


def yes_or_no(follows: bool, note: str = "", evidence: Spans = ()) -> Outcome:
    """An instruction that is kept or not, with nothing between."""
    return Outcome(float(follows), evidence, "" if follows else note)


def is_chinese(text: str) -> bool:
    """Whether a text holds Chinese characters: there full-width punctuation counts like the half-width marks that the data names."""
    return HAN_CHARACTER.search(text) is not None


def keyword_pattern(keyword: str, whole: bool = False) -> re.Pattern[str]:
    """A pattern for a keyword, case aside. ``whole``: as a word; Chinese has no spaces, so there a word may stand between others."""
    left = r"\b" if whole and not HAN_CHARACTER.match(keyword) else ""
    right = r"\b" if whole and not HAN_CHARACTER.match(keyword[-1:]) else ""
    return re.compile(left + re.escape(keyword) + right, re.IGNORECASE)
