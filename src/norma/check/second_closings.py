"""A second opinion on pointers: a verb of looking and a noun for the source, weighed in the last clause, no list of phrases.

An answer that is hardly more than its pointer, points twice or denies what it points to gets little.
"""

from __future__ import annotations

import re

from pydantic import Field

from norma.check.lexicon import STOP_WORDS, word_set
from norma.check.program import Outcome, Params, program
from norma.check.segment import family
from norma.spec.types import Item

_LOOKING = {
    "en": re.compile(r"\b(?:see|refer|consult|read|check|look|turn|details?|more|further|described|explained|according|per)\b"),
    "zh": re.compile("[见阅读看]|参考|查"),
}
_SOURCE = {
    "en": re.compile(r"\b(?:entry|entries|docs|documentation|docstring)\b"),
    "zh": re.compile("条目|文档|词条|原文|说明"),
}
_NOT = {"en": re.compile(r"\b(?:not|no|never|nothing|without|cannot)\b|n['’]t\b"), "zh": re.compile("[没不未无]")}
_CLAUSE = re.compile(r"[()\[\]（）【】,，;；:：。！？!?—–]+|\.(?=\s|$)")
_EMPTY = word_set("name certainly sure course gladly")  # code is read as "name"
_CODE = re.compile(r"`[^`\n]*`|\w+(?:[._]\w+)+")


class PointerParams(Params):
    """What has to stand beside the pointer."""

    min_words: int = Field(default=2, ge=1, description="Fewest different words of content beside it; two Chinese characters count as one.")


@program(
    "points_in_last_clause", PointerParams, languages=("en", "zh"), catches=("boilerplate", "repetition", "other_language"), threshold=0.6
)
def points_in_last_clause(item: Item, text: str, params: PointerParams) -> Outcome:
    """The last clause, short, tells to look into the source, in the question's language, and no clause before does; from .6 on."""
    language = family(item.language)
    plain = _CODE.sub(" name ", text.lower())
    clauses = [c.strip() for c in _CLAUSE.split(plain) if c.strip()]
    if not clauses:
        return Outcome(0.0, (), "nothing is said")
    *before, last = clauses
    if not points(last, language):
        return Outcome(0.0, (), "the last clause points nowhere")
    if _NOT[language].search(last):
        return Outcome(0.2, (), "the last clause denies")
    if any(points(clause, language) for clause in before):
        return Outcome(0.3, (), "it points twice")
    rest = " ".join(before)
    words = set(re.findall(r"[a-z]{2,}", rest)) - STOP_WORDS - _EMPTY
    size = len(words) + len(re.findall(r"[\u4e00-\u9fff]", rest)) / 2
    if size < params.min_words:
        return Outcome(0.3, (), "little beside the pointer")
    long = len(re.findall(r"[a-z]+", last)) + len(re.findall(r"[\u4e00-\u9fff]", last)) / 2
    return Outcome(1.0 if long <= 6 else 0.6 if long <= 9 else 0.4, (), f"the last clause points: {last}")


def points(clause: str, language: str) -> bool:
    """Whether a clause in lower case tells to look into a source."""
    return bool(_LOOKING[language].search(clause) and _SOURCE[language].search(clause))
