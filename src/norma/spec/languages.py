"""Language tags (BCP-47): their one spelling, which of the tags on offer serves a wanted one, and the coarse guess between Chinese and
the rest. Grammar, registry and likely scripts (zh-CN is written in Hans) are langcodes'."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

import langcodes
from langcodes.tag_parser import LanguageTagError

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LETTER = re.compile(r"[^\W\d_]")


@lru_cache(maxsize=4096)
def canonical(tag: str) -> str:
    """The tag as the registry writes it: zh-hans is zh-Hans, iw is he. Raises ValueError for what is no tag."""
    wrong = f"'{tag}' is not a BCP-47 language tag such as en or zh-Hans"
    try:
        if "_" in tag or not langcodes.tag_is_valid(tag):
            raise ValueError(wrong)
        return langcodes.standardize_tag(tag)
    except LanguageTagError:
        raise ValueError(wrong) from None


@lru_cache(maxsize=4096)
def _written(tag: str) -> tuple[str | None, str | None]:
    """Language and script, the likely script where the tag names none; (None, None) for what is no tag."""
    try:
        full = langcodes.Language.get(tag).maximize()
    except LanguageTagError:
        return None, None
    return full.language, full.script


def covers(offered: str, wanted: str) -> bool:
    """True when one tag is a part of the other (zh covers zh-Hant), or both are one language in one script (zh-CN is served by zh-Hans).

    zh-Hans does not serve zh-Hant, nor zh-TW, which is written in Hant.
    """
    a, b = offered.lower(), wanted.lower()
    if a == b or a.startswith(b + "-") or b.startswith(a + "-"):
        return True
    written = _written(a)
    return written[0] is not None and written == _written(b)


def best(wanted: str, offered: Iterable[str]) -> str | None:
    """The offered tag that serves ``wanted``: the same tag, else the first that covers it, else None."""
    tags = list(offered)
    return next((t for t in tags if t.lower() == wanted.lower()), None) or next((t for t in tags if covers(t, wanted)), None)


def guess(text: str, offered: Sequence[str], default: str) -> str:
    """Chinese when a third of the letters outside back-quoted code are Han characters and Chinese is offered; else ``default``."""
    prose = re.sub(r"`[^`]*`", "", text)
    han, letters = len(_HAN.findall(prose)), len(_LETTER.findall(prose))
    chinese = best("zh", offered)
    if chinese and letters and han * 3 >= letters:
        return chinese
    if best("zh", [default]) and letters:  # the default is Chinese but the text is not
        return next((tag for tag in offered if not best("zh", [tag])), default)
    return default
