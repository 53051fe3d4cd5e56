"""Which of the languages on offer serves a wanted one (BCP-47), and the coarse guess between Chinese and the rest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LETTER = re.compile(r"[^\W\d_]")


def covers(offered: str, wanted: str) -> bool:
    """True when one tag is the other or a part of it: zh covers zh-Hans and zh-Hans serves zh, but zh-Hans does not serve zh-Hant."""
    a, b = offered.lower(), wanted.lower()
    return a == b or a.startswith(b + "-") or b.startswith(a + "-")


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
