"""Who speaks: no first person in the answer (I, my, we; 我、我们、本人)."""

from __future__ import annotations

import re

from norma.check.lexicon import BEFORE_LETTER_I, FIRST_PERSON_EN, FIRST_PERSON_ZH, NOT_FIRST_PERSON_ZH
from norma.check.program import Outcome, Params, program
from norma.spec.types import Item, Spans

_CODE = re.compile(r"`[^`\n]*`|\b\w+(?:\.\w+)+|\b\w*_\w+")
_WORD = re.compile(r"(?<![\w/.-])([A-Za-z]+)(?:['’](?:m|ve|d|ll|re|s))?(?![\w/-])")


_PRONOUN_I = re.compile(r"['’]|\s+(?:am|was|have|had|will|would|can|could|do|did|think|believe|guess|hope|want|know|say)\b")


class NoParams(Params):
    """No parameters."""


@program("no_first_person", NoParams, languages=("en", "zh"))
def no_first_person(item: Item, text: str, params: NoParams) -> Outcome:
    """Nobody speaks of himself, in English or in Chinese; score: .5 for one place, 0 for two or more."""
    spans = first_person(text)
    return Outcome(max(0.0, 1 - 0.5 * len(spans)), spans, ", ".join(text[a:b] for a, b in spans[:3]))


def first_person(text: str) -> Spans:
    """The places where the writer speaks of himself; code is left out, and so are the matrix I, I/O and 自我."""
    plain = _CODE.sub(lambda m: " " * len(m.group()), text)
    found = [m.span() for m in _WORD.finditer(plain) if _speaks(plain, m)]
    for word in NOT_FIRST_PERSON_ZH:
        plain = plain.replace(word, " " * len(word))
    chinese = re.compile("|".join(map(re.escape, FIRST_PERSON_ZH)))
    found += [m.span() for m in chinese.finditer(plain)]
    found += [m.span() for m in re.finditer(r"(?i)\blet['’]s\b", plain)]
    return tuple(sorted(found))


def _speaks(text: str, match: re.Match[str]) -> bool:
    word = match.group(1)
    lower = word.lower()
    if lower not in FIRST_PERSON_EN:
        return False
    if lower == "i":
        # An index i is no person; neither is the I of "identity matrix I" or "I, J and K".
        before = text[: match.start()].split()[-1:]
        after = text[match.end() : match.end() + 2]
        named = bool(before) and before[0].lower().strip("(`'\"") in BEFORE_LETTER_I
        letters = re.match(r"\s*(?:,|and|or)\s*[A-Z]\b", text[match.end() :]) is not None
        if word == "i":
            return _PRONOUN_I.match(text[match.end(1) :]) is not None
        return not named and not letters and not after.startswith((")", "=", "]", "("))
    return not (word == "US" or (word.isupper() and len(word) > 1 and not text.isupper()))  # US, ME: names
