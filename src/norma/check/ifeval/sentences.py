"""How many sentences a text has, as IFEval counts them: Punkt (Kiss and Strunk 2006) for English, 。！？ for Chinese.

    . ? ! before white space or a mark ─→ candidate ─┬─ ? ! 。 or a full stop after a common word ─────────────→ boundary
                                                     ├─ after an abbreviation, an initial, an ellipsis ──→ only before a sentence opener
                                                     └─ after a number ──────────────────────────────────→ unless a small letter follows

Punkt learns abbreviations and sentence openers from a corpus; here both are short lists. Unlike ``segment.sentences`` a line break
ends nothing, and the number of a list item is a sentence: so the published verdicts have it.
"""

from __future__ import annotations

import re

from norma.check.lexicon import (
    ABBREVIATIONS,
    ABBREVIATIONS_BEFORE_NAMES,
    ABBREVIATIONS_BEFORE_NUMBERS,
    ABBREVIATIONS_THAT_MAY_END,
    SENTENCE_OPENERS,
)

_CANDIDATE = re.compile(r"[.?!](?=[?!)\";}\]*:@'({\[]|\s+\S)|[。！？｡]++[”’」』）》]*+(?=.)", re.DOTALL)
_CLOSING = re.compile(r"[\"')\]}]+(?:\s+|$)")  # belongs to the sentence before
_WORD_BEFORE = re.compile(r"[^\s\"'(\[{*_“‘]*$")
_NEXT = re.compile(r"[\s\"'(\[{*_“‘)\]}:;]*([^\s]*)")
_KNOWN = ABBREVIATIONS | ABBREVIATIONS_BEFORE_NAMES | ABBREVIATIONS_BEFORE_NUMBERS | ABBREVIATIONS_THAT_MAY_END
_NUMBER = re.compile(r"-?[\d.,]*\d")


def count_sentences(text: str) -> int:
    """The number of sentences; a text without an end mark is one."""
    text = text.strip()
    count, start = 0, 0
    for match in _CANDIDATE.finditer(text):
        if _ends(text, match.start(), match.end()):
            count += _says(text[start : match.end()], start)
            start = match.end()
    return count + _says(text[start:], start)


def _says(piece: str, start: int) -> bool:
    """Whether anything is left of a piece when the closing marks of the sentence before are gone."""
    closing = _CLOSING.match(piece) if start else None
    return bool(piece[closing.end() if closing else 0 :].strip())


def _ends(text: str, stop: int, end: int) -> bool:
    if text[stop] != ".":
        return True
    before = _WORD_BEFORE.search(text[:stop])
    word = before.group() if before else ""
    found = _NEXT.match(text, end)
    following = found.group(1) if found else ""
    opens = following[:1].isupper() and re.split(r"\W", following)[0].lower() in SENTENCE_OPENERS
    if not word.strip("."):  # an ellipsis
        return opens or not word
    if word.endswith("."):
        return opens
    if _NUMBER.fullmatch(word):
        return not following[:1].islower()
    if (len(word) == 1 and word.isalpha()) or word.lower() in _KNOWN:
        return opens
    return True
