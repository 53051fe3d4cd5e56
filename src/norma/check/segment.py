"""English and Chinese text handling that checkers share: what is visible, words, characters, sentences.

    response ─visible─→ text ─words─→ English words and Chinese characters (a Chinese text has no spaces to count by)
                             └sentences─→ spans; a full stop inside json.dumps, 3.14, e.g. or setup.py ends nothing

Spans are half-open character ranges.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from norma.check.lexicon import ABBREVIATIONS, ABBREVIATIONS_BEFORE_NAMES, ABBREVIATIONS_BEFORE_NUMBERS, ABBREVIATIONS_THAT_MAY_END

Span = tuple[int, int]

HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_HAN = re.compile(f"[{HAN}]")
# A word may hold single joints: don't, state-of-the-art, json.dumps, 3.14, and/or. Chinese characters are never part of one.
_WORD = re.compile(rf"(?:(?![{HAN}])\w)+(?:['’.\-/](?:(?![{HAN}])\w)+)*")
_JOINT = re.compile(r"['’.\-/]")
PARTS_A_WORD = 4  # a.b.c.d is one word; a longer chain counts again, so that joining words with dots gains nothing

_THINK = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
_OPEN_THINK = re.compile(r"\s*<think>")


def family(tag: str) -> str:
    """The language without script and region: zh for zh-Hans."""
    return tag.split("-")[0].lower()


def visible(response: str) -> tuple[str, int]:
    """What the reader sees, and where it begins: a leading ``<think>`` block is not shown; one that never closes leaves nothing."""
    block = _THINK.match(response)
    if block:
        return response[block.end() :], block.end()
    return ("", len(response)) if _OPEN_THINK.match(response) else (response, 0)


def says_something(text: str) -> bool:
    """Whether there is a letter, digit or character in it at all."""
    return any(c.isalnum() for c in text)


def is_han(char: str) -> bool:
    return bool(char) and _HAN.match(char) is not None


@dataclass(frozen=True)
class Unit:
    """An English (or other spaced) word, or one Chinese character; ``weight`` is the number of words it counts as."""

    start: int
    end: int
    text: str
    han: bool
    weight: int = 1


def units(text: str) -> list[Unit]:
    """Words and Chinese characters in order."""
    found = [Unit(m.start(), m.end(), m.group(), True) for m in _HAN.finditer(text)]
    for m in _WORD.finditer(text):
        parts = len(_JOINT.findall(m.group())) + 1
        found.append(Unit(m.start(), m.end(), m.group(), False, -(-parts // PARTS_A_WORD)))
    return sorted(found, key=lambda unit: unit.start)


_ENDS_HAN = "。！？｡"
_ENDS = ".!?…" + _ENDS_HAN
_OPENERS = "([{（【「『“‘《<"
_CLOSERS = ")]}）】」』”’》>\"'`*_"
_BOTH = "\"'`*_"  # marks that open and close alike
_BULLET = re.compile(r"[-*•·]\s|\d+[.)、]\s")


def sentences(text: str) -> list[Span]:
    """The sentences that say something, as spans; the last may lack its end mark."""
    ends: list[int] = []
    i = 0
    while i < len(text):
        if text[i] == "\n":
            if _line_ends(text, i):
                ends.append(i)
            i += 1
        elif text[i] in _ENDS:
            run = i
            while run < len(text) and text[run] in _ENDS:
                run += 1
            after = run
            while after < len(text) and text[after] in _CLOSERS:
                after += 1
            if _mark_ends(text, i, run, after):
                ends.append(after)
            i = run
        else:
            i += 1
    spans, start = [], 0
    for end in [*ends, len(text)]:
        piece = text[start:end]
        if says_something(piece):
            spans.append((start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())))
        start = end
    return spans


def _line_ends(text: str, i: int) -> bool:
    """A line break ends a sentence before an empty line, a bullet or a fresh beginning; wrapped lines go on in lower case."""
    rest = text[i + 1 :].lstrip(" \t")
    return not rest or rest[0] == "\n" or _BULLET.match(rest) is not None or not rest[0].islower()


def _mark_ends(text: str, start: int, run: int, after: int) -> bool:
    marks, before = text[start:run], text[start - 1] if start else " "
    if any(m in _ENDS_HAN for m in marks):
        return True
    if before in _OPENERS or (before in _BOTH and (start < 2 or text[start - 2].isspace() or text[start - 2] in _OPENERS)):
        return False  # `!`, (?) and the like: the mark itself is meant
    if after >= len(text):
        return True
    following = text[after]
    upcoming = text[after:].lstrip()[:1]
    if (len(marks) > 1 and set(marks) <= {".", "…"}) or marks == "…":
        return (following.isspace() and not before.isspace()) or upcoming.isupper()
    if is_han(following):
        return True
    if not following.isspace():
        return marks != "." and following.isupper()
    if marks != "." or before.isspace():
        return True
    return not _abbreviated(text, start, upcoming)


def _abbreviated(text: str, stop: int, upcoming: str) -> bool:
    """Whether the full stop at ``stop``, with white space after it, belongs to the word before it."""
    words = text[:stop].split()[-2:]
    word = words[-1].lstrip(_OPENERS + _BOTH)
    lower = word.lower()
    if lower in ABBREVIATIONS:
        return True
    if lower in ABBREVIATIONS_BEFORE_NAMES and upcoming.isupper():
        return True
    if lower in ABBREVIATIONS_BEFORE_NUMBERS and (upcoming.isdigit() or upcoming == "("):
        return True
    if lower in ABBREVIATIONS_THAT_MAY_END and not (upcoming.isupper() or is_han(upcoming)):
        return True
    if len(word) == 1 and word.isalpha() and word.isupper():
        # J. R. R. Tolkien and Donald E. Knuth go on; "the matrix A. The ..." does not.
        previous = words[0] if len(words) == 2 else ""
        return upcoming.isupper() and previous[:1].isupper()
    line = text[:stop].rsplit("\n", 1)[-1].strip()
    return word.isdigit() and line == word  # 1. in a numbered list
