"""The form that the question asks for, read from it and looked for in the answer.

"List three reasons"  ─asked_count─→ 3  ─→ so many list items        列出三条理由
"in at most 20 words" ─asked_bound─→ 20 ─→ not more words            不超过20个字
"as JSON"                               ─→ the answer parses         用JSON回答
"""

from __future__ import annotations

import re

from pydantic import Field

from norma.check.persons import NoParams
from norma.check.program import Outcome, Params, program
from norma.check.segment import says_something, units
from norma.spec.types import Item

_SMALL = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_SMALL_ZH = {"两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9, "十": 10}
_COUNT = (
    re.compile(
        rf"(?i)\b(?:list|give|name|write|suggest|state|tell)\b(?:\s+\w+){{0,3}}?\s+(\d{{1,2}}|{'|'.join(_SMALL)})\s+(?:[\w-]+\s+){{0,2}}?"
        r"(?:points?|items?|reasons?|tips?|examples?|bullets?|ideas?|steps?|ways?|facts?|names?|rules?|advantages?|things?|uses?"
        r"|kinds?)\b"
    ),
    re.compile(
        rf"(?:列|给我|给出|写[出下]|说[出说]|举|提|推荐|总结|介绍)[^的]?(\d{{1,2}}|[{''.join(_SMALL_ZH)}])\s*(?:条|点|个|项|种)(?!字)"
    ),
)


def asked_count(question: str) -> int | None:
    """How many list items the question asks for, or None."""
    for pattern in _COUNT:
        if found := pattern.search(question):
            said = found.group(1).lower()
            return _SMALL.get(said) or _SMALL_ZH.get(said) or (int(said) if said.isdigit() else None)
    return None


_ITEM = re.compile(r"(?m)^[ \t]*(?:[-*](?=\s)|[•·]|\d{1,2}[.)、．](?!\d)|[(（]\d{1,2}[)）]|[①-⑩])[ \t]*(?=\S)")


@program("asked_items", NoParams, languages=("en", "zh"), catches=("boilerplate", "repetition", "other_language"))
def asked_items(item: Item, text: str, params: NoParams) -> Outcome:
    """As many list items (bullets or numbers at the beginning of lines) as the question asks for; score: the smaller over the larger."""
    wanted, found = asked_count(item.user), tuple(m.span() for m in _ITEM.finditer(text))
    if wanted is None:
        return Outcome(1.0 if found else 0.0, (), "the question names no number")
    if not found:
        return Outcome(0.0, (), f"no list, {wanted} items asked for")
    return Outcome(min(wanted, len(found)) / max(wanted, len(found), 1), found, f"{len(found)} items, {wanted} asked for")


_BOUND = (
    re.compile(
        r"(?i)\b(?:at\s+most|no\s+more\s+than|not\s+more\s+than|up\s+to|under|(?<!no\s)(?<!not\s)fewer\s+than"
        r"|(?<!no\s)(?<!not\s)less\s+than|(?:a\s+)?maximum\s+of|within"
        r"|max\.?|in)"
        r"\s+(\d{1,4})\s+(words?|characters?)\b"
    ),
    re.compile(r"(?:不超过|最多|少于|不多于|不要超过|控制在|限)\s*(\d{1,4})\s*(?:个)?(?:汉)?(字)"),
    re.compile(r"(\d{1,4})\s*(?:个)?(?:汉)?(字)(?:以内|之内|以下|内)"),
)


def asked_bound(question: str) -> tuple[int, str] | None:
    """The most words, characters or 字 that the question allows, with the unit as written; None when it sets no bound."""
    found = next((m for pattern in _BOUND if (m := pattern.search(question))), None)
    return (int(found.group(1)), found.group(2).lower().rstrip("s")) if found else None


@program("asked_length", NoParams, languages=("en", "zh"))
def asked_length(item: Item, text: str, params: NoParams) -> Outcome:
    """Not more words (or 字: a Chinese character or a word of another script) than the question allows; score: 0 at twice as many."""
    bound = asked_bound(item.user)
    if bound is None:
        return Outcome(1.0, (), "the question sets no bound")
    most, unit = bound
    count = len(text.strip()) if unit == "character" else sum(u.weight for u in units(text))
    return Outcome(min(1.0, max(0.0, 2 - count / most)), (), f"{count} of at most {most}", float(most - count))


class HeadingParams(Params):
    """Which answers are short."""

    short: int = Field(default=150, ge=1, description="An answer of fewer words (a Chinese character counts as one) is short.")


_HEADING = re.compile(
    r"(?m)^#{1,6}[ \t]+\S.*$|^(?=.*\S).+\n[ \t]{0,3}(?:=+|-{3,})[ \t]*$|^[ \t]*(?:\*\*|__)[^*_\n]+(?:\*\*"
    r"|__)[ \t]*[:：]?[ \t]*$"
)


@program("no_headings", HeadingParams)
def no_headings(item: Item, text: str, params: HeadingParams) -> Outcome:
    """A short answer holds no Markdown heading, nor a line in bold in place of one; score: .5 for one, 0 for two or more."""
    if sum(u.weight for u in units(text)) >= params.short:
        return Outcome(1.0, (), "a long answer")
    spans = tuple(m.span() for m in _HEADING.finditer(text) if says_something(m.group()))
    return Outcome(max(0.0, 1 - 0.5 * len(spans)), spans)
