"""The language of an answer, seen by its scripts: which letters, unmixed, with code and names left as they are.

text ─without code, web addresses, quotations─→ Chinese characters and words ─names set aside─→ shares
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field

from norma.check.mentions import name_spans
from norma.check.persons import NoParams
from norma.check.program import Outcome, Params, program
from norma.check.segment import Unit, family, units
from norma.spec.types import Item, Spans

_CODE = re.compile(r"```.*?```|`[^`\n]*`|https?://\S+", re.DOTALL)
_QUOTE = re.compile(r"“[^”\n]*”|「[^」\n]*」|『[^』\n]*』|《[^》\n]*》|\"[^\"\n]*\"")
_NAME = re.compile(r"[A-Z0-9]|[A-Za-z]+[A-Z0-9._/-]")
_TARGET = re.compile(
    r"(?i)\b(?:in|into|to)\s+(?:(?:simple|plain|simplified|good)\s+)?(chinese|mandarin|english)\b|(?:译成|译为|译作|用|换成"
    r"|改成)\s*(中文|汉语|英文|英语)"
)


def asked_language(item: Item) -> str:
    """The language that the question asks for (en or zh), else the language of the question."""
    found = _TARGET.search(item.user)
    if found is None:
        return family(item.language)
    return "en" if (found.group(1) or found.group(2)).lower() in ("english", "英文", "英语") else "zh"


def prose(text: str, quotes: bool = False) -> str:
    """``text`` with code and web addresses (and quotations, unless wanted) blanked, so that places stay what they are."""
    plain = _CODE.sub(lambda m: " " * len(m.group()), text)
    return plain if quotes else _QUOTE.sub(lambda m: " " * len(m.group()), plain)


def is_name(unit: Unit) -> bool:
    """Whether a word belongs to every language: a capital inside or in front, digits, dots, a single letter."""
    return not unit.han and (len(unit.text) == 1 or _NAME.match(unit.text) is not None)


class ScriptParams(Params):
    """Which language is expected."""

    of: Literal["question", "asked"] = Field(
        default="question", description="question: the language of the question; asked: the one it asks for, such as 'in English'."
    )


@program("answer_script", ScriptParams, languages=("en", "zh"), catches=("other_language",), threshold=0.7)
def answer_script(item: Item, text: str, params: ScriptParams) -> Outcome:
    """Most of the prose is in the script of the language expected; score: its share, a word counting as two characters; from .7 on."""
    language = asked_language(item) if params.of == "asked" else family(item.language)
    # A quotation says nothing of the answer's own language, unless the answer is nothing else.
    found = units(prose(text)) or units(prose(text, quotes=True))
    han = sum(u.han for u in found)
    words = sum(2 for u in found if not u.han and (language == "en" or not is_name(u)))
    if not han + words:
        return Outcome(1.0, (), "names, numbers and code only")  # fine for a Chinese question too
    share = (han if language == "zh" else words) / (han + words)
    return Outcome(share, (), f"{share:.0%} {language}")


@program("no_mixing", NoParams, languages=("en", "zh"))
def no_mixing(item: Item, text: str, params: NoParams) -> Outcome:
    """No word of the other script in the prose; code, quotations, glosses in brackets, names, words of the question are free."""
    plain = re.sub(r"[(（][^()（）\n]{1,40}[)）]", lambda m: " " * len(m.group()), prose(text))
    asked = {u.text.lower() for u in units(item.user)}
    found = units(plain)
    chinese = sum(u.han for u in found) >= sum(2 for u in found if not u.han and not is_name(u))
    strange: Spans = tuple((u.start, u.end) for u in found if u.han != chinese and not is_name(u) and u.text.lower() not in asked)
    return Outcome(max(0.0, 1 - 0.25 * len(strange)), strange, " ".join(plain[a:b] for a, b in strange[:4]))


_SPAN = re.compile(r"`([^`\n]+)`")


@program("keeps_code", NoParams, catches=("boilerplate", "other_language"))
def keeps_code(item: Item, text: str, params: NoParams) -> Outcome:
    """Every name that the question puts in back quotes stands in the answer, letter for letter; score: the share that does."""
    names = list(dict.fromkeys(m.group(1).strip().removesuffix("()") for m in _SPAN.finditer(item.user.split("\n", 1)[0])))
    if not names:
        return Outcome(1.0, (), "the question names no code")
    kept = {name: name_spans(name, text) for name in names}
    share = sum(bool(spans) for spans in kept.values()) / len(names)
    return Outcome(share, tuple(spans[0] for spans in kept.values() if spans), ", ".join(n for n, s in kept.items() if not s))
