"""Saying that the source does not say: "The entry does not say what `x` does.", 该条目没有说明 `x` 的作用。"""

from __future__ import annotations

import re

from pydantic import Field

from norma.check.lexicon import SAID_EN, SAYING_EN, SAYING_ZH, SOURCES_EN, SOURCES_ZH
from norma.check.program import Outcome, Params, program
from norma.spec.types import Item

_NOT = r"(?:(?:does|do|did|could|can|is|are|was|were)\s+not|(?:does|do|did|could|ca|is|are|was|were)n['’]t|cannot|never)"
_SAYS_NOT = rf"{_NOT}\s+(?:\w+ly\s+)?(?:(?:{SAYING_EN})\b|about\b)"
_NOT_SAID = rf"{_NOT}\s+(?:\w+ly\s+)?(?:{SAID_EN})\b"
_NOTHING = r"\b(?:no\s+(?:information|mention|description|details?|explanation|word)|nothing)\s+(?:about|on|of|as\s+to)\b"
_SAYS_NOTHING = r"\b(?:says|has|gives|contains|holds|states|offers|provides|mentions)\s+(?:no|nothing)\b"
# Anything within the sentence; the dots of json.dumps do not end it.
_WITHIN = r"(?:[^.!?。！？\n]|\.(?=\w))"
_ZH_NOT = r"(?:并没有|没有|并未|未|不|并不|没)"
_FULL = re.compile(
    rf"\b(?:{SOURCES_EN})\b{_WITHIN}{{0,60}}?\b{_SAYS_NOT}"
    rf"|\b(?:{SOURCES_EN})\b{_WITHIN}{{0,40}}?{_SAYS_NOTHING}"
    rf"|{_NOT_SAID}{_WITHIN}{{0,30}}?\b(?:{SOURCES_EN})\b"
    rf"|{_NOTHING}{_WITHIN}{{0,60}}?\b(?:{SOURCES_EN})\b"
    rf"|(?:{SOURCES_ZH}){_WITHIN}{{0,16}}?{_ZH_NOT}(?:有)?(?:{SAYING_ZH})"
    rf"|(?:{SOURCES_ZH}){_WITHIN}{{0,16}}?(?:不是|并非|无关)",
    re.IGNORECASE,
)
_PARTIAL = re.compile(rf"\b{_SAYS_NOT}|{_NOT_SAID}|{_NOTHING}|{_ZH_NOT}(?:{SAYING_ZH})", re.IGNORECASE)


class StatementParams(Params):
    """Whether the statement is wanted."""

    present: bool = Field(default=True, description="true: the answer must say that the source does not say; false: it must not.")


@program("says_missing", StatementParams, languages=("en", "zh"), catches=())
def says_missing(item: Item, text: str, params: StatementParams) -> Outcome:
    """The answer says (or does not say) that the source does not say; score .5: a denial that names no source."""
    full = _FULL.search(text)
    if not params.present:
        return Outcome(0.0, (full.span(),), "says that the source does not say") if full else Outcome(1.0)
    if full:
        return Outcome(1.0, (full.span(),), "says that the source does not say")
    partial = _PARTIAL.search(text)
    return Outcome(0.5, (partial.span(),), "the denial names no source") if partial else Outcome(0.0, (), "nothing is said to be missing")
