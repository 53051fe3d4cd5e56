"""Is the answer right? A number against the item's own fact: the reward that can be verified (RLVR).

    "17 + 25 = 42\n#### 42"  ─last "####"─→ 42 ─┐
    item.facts["answer"]: "42", 42, "42.0" ─────┴─ equal as exact fractions ─→ 1, else 0

The fact comes from the data set, never from the conversation: nothing that a user or the model writes can change what is right.
"""

from __future__ import annotations

import re
from fractions import Fraction

from pydantic import Field

from norma.check.program import Outcome, Params, program
from norma.spec.types import CheckerFailure, Item

_NUMBER = re.compile(r"[-+\u2212]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?")


class FinalAnswerParams(Params):
    """Where the answer stands and what it is compared with."""

    fact: str = Field(default="answer", description="Name of the item's fact that holds the right number.")
    marker: str = Field(default="####", min_length=1, description="Text before the final answer, as in GSM8K.")
    near: float = Field(default=0.0, ge=0, description="A wrong number less than so far away gets up to half of the score; 0: nothing.")


class LastNumberParams(Params):
    """What the last number is compared with."""

    fact: str = Field(default="answer", description="Name of the item's fact that holds the right number.")


@program("final_answer", FinalAnswerParams, catches=("boilerplate", "repetition", "other_language"))
def final_answer(item: Item, text: str, params: FinalAnswerParams) -> Outcome:
    """The number behind the marker is the item's right answer; a second marker is a second guess, and counts as none."""
    right = _right(item, params.fact)
    if text.count(params.marker) != 1:
        return Outcome(0.0, (), f"{text.count(params.marker)} times '{params.marker}', not once")
    start = text.index(params.marker) + len(params.marker)
    found = _NUMBER.search(text, start)
    if found is None or text[start : found.start()].strip(" \t$€£¥:="):
        return Outcome(0.0, (), f"no number right behind '{params.marker}'")
    return _compare(found, right, params.near)


@program("last_number", LastNumberParams, catches=("boilerplate", "repetition", "other_language"))
def last_number(item: Item, text: str, params: LastNumberParams) -> Outcome:
    """The last number of the answer, wherever it stands, is the item's right answer."""
    right = _right(item, params.fact)
    found = list(_NUMBER.finditer(text))
    return _compare(found[-1], right) if found else Outcome(0.0, (), "no number")


def _right(item: Item, fact: str) -> Fraction:
    value = item.facts.get(fact)
    number = None if value is None or isinstance(value, bool) else exact(str(value))
    if number is None:
        raise CheckerFailure(f"this item has no number as fact '{fact}'")
    return number


def _compare(found: re.Match[str], right: Fraction, near: float = 0.0) -> Outcome:
    number = exact(found[0])
    if number is None:
        return Outcome(0.0, (found.span(),), f"{found[0]} is no number")
    if number == right:
        return Outcome(1.0, (found.span(),), found[0])
    off = float(abs(number - right))
    return Outcome(0.5 * max(0.0, 1 - off / near) if near else 0.0, (found.span(),), f"{found[0]}, not {right}", -off)


def exact(text: str) -> Fraction | None:
    """A number as people write it ("1,234.50", "−3", "3/4"), exactly; None for anything else."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return None
    whole, _, below = text.replace(",", "").replace("\u2212", "-").partition("/")
    if below and not int(below):
        return None
    return Fraction(whole) / (int(below) if below else 1)
