"""Lexicons: how many words of a list an answer holds; small lists are shipped (courtesy, rude, hedges), larger ones named by path.

list (name, files by language, or words) ─of the item's language─→ one pattern ─→ hits ─→ at least min, at most max
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from norma.base.errors import NormaError, nearest
from norma.check import lists
from norma.check.program import Outcome, Params, program
from norma.check.segment import family, is_han
from norma.spec.types import CheckerFailure, Item


class LexiconParams(Params):
    """Which words, and how many of them."""

    list: str = Field(default="", description="A shipped list: courtesy, rude or hedges (English and Chinese).")
    files: dict[str, str] = Field(
        default_factory=dict, description="Own lists, language to path; one word or phrase a line, # for comments."
    )
    words: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="Own words, language to list; filled from list and files.")
    min: int = Field(default=0, ge=0, description="Fewest hits.")
    max: int | None = Field(default=None, ge=0, description="Most hits.")
    distinct: bool = Field(default=False, description="Whether a word counts once, however often it occurs.")

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        """Reads the lists, so that the words themselves, not the place of a file, are what the checker's digest covers."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        words = dict(values.get("words") or {})
        name = values.get("list") or ""
        if name and name not in lists.names():
            raise ValueError(f"there is no list '{name}'. {nearest(str(name), lists.names())}")
        for language in lists.languages(name) if name else ():
            words[language] = (*words.get(language, ()), *lists.shipped(name, language))
        for language, path in (values.pop("files", None) or {}).items():
            try:
                words[language] = (*words.get(language, ()), *lists.read(Path(path)))
            except NormaError as error:
                raise ValueError(str(error)) from None
        return {**values, "words": words}

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not self.words or any(not w.strip() for words in self.words.values() for w in words):
            raise ValueError("no words: give 'list', 'files' or 'words', none of them empty")
        if self.min == 0 and self.max is None:
            raise ValueError("at least one of min and max is needed")
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) is greater than max ({self.max})")
        return self


@program("lexicon", LexiconParams)
def lexicon(item: Item, text: str, params: LexiconParams) -> Outcome:
    """Words of a list occur at least min and at most max times; a language without a list is an error."""
    words = next((words for tag, words in params.words.items() if family(tag) == family(item.language)), None)
    if words is None:
        raise CheckerFailure(f"the lexicon has no words in {item.language}, only in {', '.join(sorted(params.words))}")
    spans = [m.span() for m in _pattern(words).finditer(text)]
    if params.distinct:
        spans = list({text[a:b].lower(): (a, b) for a, b in reversed(spans)}.values())
    count = len(spans)
    note = f"{count} words of the list"
    if count < params.min:
        return Outcome(count / params.min, tuple(sorted(spans)), note, float(count - params.min))
    if params.max is not None and count > params.max:
        return Outcome(params.max / count, tuple(sorted(spans)), note, float(params.max - count))
    return Outcome(1.0, tuple(sorted(spans)), note)


@lru_cache(maxsize=64)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    """All words in one pattern, the longest first, whole words where a word has letters of a spaced script at its ends."""
    parts = []
    for word in sorted(words, key=len, reverse=True):
        left = r"(?<!\w)" if word[0].isalnum() and not is_han(word[0]) else ""
        right = r"(?!\w)" if word[-1].isalnum() and not is_han(word[-1]) else ""
        parts.append(left + r"\s+".join(map(re.escape, word.replace("’", "'").split())).replace("'", "['’]") + right)
    return re.compile("|".join(parts), re.IGNORECASE)
