"""What is counted as a word, in scripts with spaces and in scripts without.

    "The cat's 3 mats"  ─words─→ The  cat's  3  mats         (between spaces, as in the English rules)
    "他在2024年去了 Paris" ─units─→ 他 在 2024 年 去 了 Paris    (each character of a script without spaces, each run of others)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from norma.text.clean.steps import UNKNOWN, Document
from norma.text.languages import language_of

# Han, its extensions and iteration marks; kana; Thai, Lao, Tibetan, Burmese, Khmer: scripts that put no spaces between words.
WITHOUT_SPACES = (
    "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f\u3040-\u30ff"
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
)
LANGUAGES_WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "bo", "dz", "my", "km"})
_UNIT = re.compile(rf"[{WITHOUT_SPACES}]|(?:(?![{WITHOUT_SPACES}])\w)+")
_ASCII_UNIT = re.compile(r"\w+", re.ASCII)


def units(text: str) -> list[str]:
    """Characters of scripts without spaces, and runs of other letters and digits, in order; white space and punctuation are left out."""
    return (_ASCII_UNIT if text.isascii() else _UNIT).findall(text)


def language(document: Document) -> str:
    """The document's language as tagged; where it is not, or is unknown, ``zh`` or ``en`` as the script suggests."""
    return document.language if document.language not in ("", UNKNOWN) else language_of(document.text)


def words(text: str, language: str) -> list[str]:
    """What a rule counts as words: pieces between white space, or :func:`units` where the language writes no spaces."""
    return units(text) if language in LANGUAGES_WITHOUT_SPACES else text.split()


def lines(text: str) -> list[str]:
    """The lines that hold something, without white space at their ends."""
    return [line for raw in text.splitlines() if (line := raw.strip())]


_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")


def paragraphs(text: str) -> list[str]:
    """What stands between blank lines."""
    return [part for raw in _BLANK_LINES.split(text) if (part := raw.strip())]


def share(part: float, whole: float) -> float:
    """``part / whole``, and 0 of nothing."""
    return part / whole if whole else 0.0


def characters(pieces: Sequence[str]) -> int:
    return sum(map(len, pieces))
