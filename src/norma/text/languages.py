"""Which language a text is in, as far as its script says: Chinese (zh), or everything else (en)."""

from __future__ import annotations

import re
from typing import Literal

Language = Literal["en", "zh"]
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]+")


def language_of(text: str) -> Language:
    """``zh`` when Chinese characters outnumber words in Latin script."""
    sample = text[:2000]
    han = len(_HAN.findall(sample))
    return "zh" if han and han >= len(_LATIN.findall(sample)) else "en"
