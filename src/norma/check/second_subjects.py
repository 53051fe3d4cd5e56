"""Second opinions on the subject: is it spoken of near the beginning, and does a denial stay a denial?

The first judges the overlap of name parts within the first words instead of looking for the exact name anywhere; the second looks for
a negation and counts what is asserted beside it instead of matching phrases.
"""

from __future__ import annotations

import re

from pydantic import Field

from norma.check.lexicon import STOP_WORDS, word_set
from norma.check.mentions import SubjectParams, subject_of
from norma.check.program import Outcome, program
from norma.spec.types import Item

_TOKEN = re.compile(r"[A-Za-z0-9_.]+|[\u4e00-\u9fff]")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[A-Z]")
_OPENING_WORDS = word_set("certainly of course sure gladly absolutely happy glad thank thanks to help asking for name")


class FrontParams(SubjectParams):
    """Where the subject must turn up."""

    within: int = Field(default=14, ge=1, description="The subject must be among so many first words (or Chinese characters).")
    max_mentions: int = Field(default=2, ge=1, description="More mentions of the whole name than this are a violation.")
    min_other: int = Field(default=3, ge=0, description="Fewest other words: a name alone is no answer.")


@program("subject_in_front", FrontParams, catches=("boilerplate", "repetition", "other_language"), threshold=0.6)
def subject_in_front(item: Item, text: str, params: FrontParams) -> Outcome:
    """The parts of the name asked about are among the first words, not again and again, beside a real answer; complies from .6 on."""
    subject = subject_of(item, params.pattern)
    wanted = set(name_parts(subject))
    if not wanted:
        return Outcome(0.0, (), "the question names no subject")
    tokens = _TOKEN.findall(text)
    front = {part for token in tokens[: params.within] for part in name_parts(token)}
    score = len(wanted & front) / len(wanted)
    if text.lower().count(subject.lower()) > params.max_mentions and len(subject) > 2:
        return Outcome(0.3 * score, (), "the name again and again")
    own = {subject, ".".join(subject.split(".")[-2:]), subject.rsplit(".", 1)[-1]}
    others = {token.strip(".").lower() for token in tokens if token.strip(".") not in own} - _OPENING_WORDS
    if len(others) < params.min_other:
        return Outcome(0.3 * score, (), "little beside the name")
    return Outcome(score, (), f"{len(wanted & front)} of {len(wanted)} parts of the name in front")


def name_parts(name: str) -> list[str]:
    """The parts of a name in lower case: json.JSONDecoder gives json, json, decoder."""
    return [part.lower() for part in _PART.findall(name)]


_NEGATION = re.compile(r"(?i)\b(?:not|no|never|nothing|neither|without|cannot|unable|fails)\b|n['’]t\b|[没未不无非]")
_TURN = re.compile(r"(?i)\b(?:but|however|although|though|nevertheless|instead|rather|while|whereas|because)\b|但|不过|然而|而是|却")
_DENIAL_WORDS = word_set(
    """
    entry text speak talk documentation docstring documented page passage description describe describes described excerpt section
    source say state stated mention mentions mentioned explain explains explained cover covered covers tell specify information details
    anything nothing does doing purpose meaning function used certainly course sure gladly pleasure absolutely happy glad help
    thank thanks asking question sorry unfortunately afraid please welcome means name given here about what which provided contain
    contains include includes article reference role work works behaviour behavior explanation mentioning subject asked unable
    cannot found answer
    """
)
_DENIAL_ZH = re.compile(
    "您好|你好|好的|当然可以|当然|抱歉|对不起|很遗憾|感谢您的提问|谢谢您的提问|没问题|乐意效劳|条目|文档|文中|文本|词条|资料|原文|内容|说明|提到|提及|介绍|描述|解释"
    "|谈到|谈及|文字|包含|涉及|给出|记录|定义|作用|用途|功能|含义|意思|什么"
    "|没有|并未|并没有"
    "|关于|该|此|这个|这段|的|是|在|对|有|做|和|了|中|里|未|不|没|任何|信息|相关|名称|所问|并非|无关|您|请|用来|如何|用法"
)


class DenialParams(SubjectParams):
    """What may stand beside the denial."""

    max_claims: int = Field(default=3, ge=0, description="Most content words beside the denial; four Chinese characters count as one.")


@program("denies_without_claims", DenialParams, languages=("en", "zh"), catches=("boilerplate",), threshold=0.5)
def denies_without_claims(item: Item, text: str, params: DenialParams) -> Outcome:
    """The answer denies, and asserts next to nothing beside the denial; complies from .5 on."""
    if not _NEGATION.search(text):
        return Outcome(0.0, (), "nothing is denied")
    if _TURN.search(re.sub(r"`[^`\n]*`", " ", text)):
        return Outcome(0.2, (), "the denial is taken back")
    subject = set(name_parts(subject_of(item, params.pattern)))
    words = [w for w in re.findall(r"[a-z]{3,}", re.sub(r"`[^`\n]*`|\w+(?:[._]\w+)+", " ", text).lower()) if w not in subject]
    claims = [w for w in words if w not in STOP_WORDS and w not in _DENIAL_WORDS]
    han = len(re.findall(r"[\u4e00-\u9fff]", _DENIAL_ZH.sub("", text)))
    total = len(claims) + han // 4
    score = max(0.0, 1 - total / (2 * params.max_claims + 1))
    return Outcome(score, (), f"{total} claims beside the denial", float(params.max_claims - total))
