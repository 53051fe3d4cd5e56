"""A second opinion on courtesy: marks of courtesy weighed over the whole answer, not an opening matched against a list.

An answer that only greets, greets twice or piles up courtesies gets little: what a policy finds when it games the opening list.
"""

from __future__ import annotations

import re

from pydantic import Field

from norma.check.lexicon import COURTESY_MARKS, NOT_COURTESY, RUDE_MARKS, word_set
from norma.check.program import Outcome, Params, program
from norma.check.segment import family
from norma.spec.types import Item

_FILLER = word_set("to the a an and you your for that this asking question help me is i am it")
_FILLER_ZH = re.compile("提问|解答|回答|服务|问题|为|很|的")


class CourtesyParams(Params):
    """What is too much courtesy and too little answer."""

    max_marks: int = Field(default=3, ge=1, description="Most marks of courtesy, all counted.")
    min_words: int = Field(default=3, ge=1, description="Fewest words beside them; two Chinese characters count as one.")
    present: bool = Field(default=True, description="true: courtesy is wanted; false: none, in any language.")


@program("courtesy_marks", CourtesyParams, languages=("en", "zh"), catches=("boilerplate", "other_language"), threshold=0.6)
def courtesy_marks(item: Item, text: str, params: CourtesyParams) -> Outcome:
    """Weighted marks of courtesy in the language of the question, none twice, none rude, beside a real answer; complies from .6 on."""
    language = family(item.language)
    plain = re.sub(r"`[^`\n]*`", " name ", text.lower())
    for phrase in NOT_COURTESY:
        plain = plain.replace(phrase, " ")
    if not params.present:
        weighed = {mark: value for marks in COURTESY_MARKS.values() for mark, value in marks.items() if _find(mark, plain)}
        return Outcome(max(0.0, 1 - sum(weighed.values())), (), f"courtesy: {', '.join(weighed)}" if weighed else "")
    rude = [mark for mark in RUDE_MARKS[language] if _find(mark, plain)]
    if rude:
        return Outcome(0.0, (), f"rude: '{rude[0]}'")
    weight, counts = 0.0, {}
    for mark, value in sorted(COURTESY_MARKS[language].items(), key=lambda pair: -len(pair[0])):
        places = _find(mark, plain)
        if places:
            weight += value
            counts[mark] = len(places)
            plain = re.sub(_pattern(mark), " ", plain)
    words = [w for w in re.findall(r"[a-z0-9]+(?:[._'-][a-z0-9]+)*", plain) if w not in _FILLER]
    characters = re.findall(r"[\u4e00-\u9fff]", _FILLER_ZH.sub("", plain))
    if not counts:
        return Outcome(0.0, (), "no mark of courtesy in the language of the question")
    if len(words) + len(characters) / 2 < params.min_words:
        return Outcome(0.0, (), "courtesy without an answer")
    score = min(1.0, weight)
    # 您 may come twice in one polite Chinese sentence; a greeting may not.
    twice = [mark for mark, n in counts.items() if n > (2 if mark in ("您", "请") else 1)]
    if twice or sum(counts.values()) > params.max_marks:
        return Outcome(0.3 * score, (), f"'{twice[0]}' again and again" if twice else "courtesies are piled up")
    return Outcome(score, (), f"courtesy {weight:.1f}: {', '.join(counts)}")


def _pattern(mark: str) -> str:
    return rf"(?<![a-z]){re.escape(mark)}(?![a-z])" if mark.isascii() else re.escape(mark)


def _find(mark: str, text: str) -> list[str]:
    return re.findall(_pattern(mark), text)
