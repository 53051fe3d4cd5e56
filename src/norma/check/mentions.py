"""Naming the thing asked about, and plain lists of words that must or must not occur.

last user message ──pattern, first group──→ the subject (json.dumps) ──→ is it in the answer, whole or by its last two parts?
"""

from __future__ import annotations

import re
from typing import Literal, Self

import re2
from pydantic import Field, field_validator, model_validator

from norma.check.program import Outcome, Params, program
from norma.spec.types import Item


class SubjectParams(Params):
    """Where the question names its subject."""

    pattern: str = Field(default="`([^`]+)`", description="RE2 pattern on the last user message; its first group is the subject.")

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, value: str) -> str:
        return checked_pattern(value, groups=1)


def checked_pattern(value: str, groups: int = 0) -> str:
    """``value`` if it is an RE2 pattern with at least ``groups`` groups."""
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(value, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"'{value}' is not an RE2 pattern: {reason}") from None
    if compiled.groups < groups:
        raise ValueError(f"'{value}' has no group; put the part that names the subject in round brackets")
    return value


def subject_of(item: Item, pattern: str) -> str:
    """The name that the last user message asks about, or ""."""
    found = re2.search(pattern, item.user)
    return (found.group(1) or "").strip().removesuffix("()") if found else ""


def name_spans(name: str, text: str) -> list[tuple[int, int]]:
    """Where ``name`` stands in ``text`` as a whole: not inside a longer identifier, in front of a longer dotted name or behind one."""
    exact = re.compile(rf"(?<![A-Za-z0-9_.]){re.escape(name)}(?![A-Za-z0-9_])(?!\.[A-Za-z0-9_])")
    return [m.span() for m in exact.finditer(text)]


@program("names_subject", SubjectParams, catches=("boilerplate", "other_language"))
def names_subject(item: Item, text: str, params: SubjectParams) -> Outcome:
    """The answer holds the name asked about, whole or its last two parts; score up to .5: some of its parts occur as words."""
    subject = subject_of(item, params.pattern)
    if not subject:
        return Outcome(0.0, (), "the question names no subject")
    parts = subject.split(".")
    for name in dict.fromkeys((subject, ".".join(parts[-2:]))):
        spans = name_spans(name, text)
        if spans:
            return Outcome(1.0, (spans[0],), f"names '{name}'")
    words = [p for p in parts if p]
    seen = [p for p in words if re.search(rf"(?<![A-Za-z0-9_]){re.escape(p)}(?![A-Za-z0-9_])", text)]
    return Outcome(0.5 * len(seen) / max(1, len(words)) if len(words) > 1 else 0.0, (), f"'{subject}' is not named")


class WordParams(Params):
    """Words to look for."""

    words: tuple[str, ...] = Field(min_length=1, description="Words or phrases; case counts for nothing.")
    expect: Literal["all", "any", "none"] = Field(default="any", description="How many of them the answer must hold.")

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if any(not word.strip() for word in self.words):
            raise ValueError("a word is empty")
        return self


@program("words", WordParams)
def words(item: Item, text: str, params: WordParams) -> Outcome:
    """The answer holds all, any or none of the given words; score: the share that is right."""
    spans = {word: _word_span(word, text) for word in params.words}
    found = tuple(span for span in spans.values() if span)
    share = len(found) / len(spans)
    if params.expect == "none":
        return Outcome(1 - share, found, f"{len(found)} of the unwanted words" if found else "")
    score = share if params.expect == "all" else float(bool(found))
    return Outcome(score, found, f"{len(found)} of {len(spans)} words")


def _word_span(word: str, text: str) -> tuple[int, int] | None:
    # Word boundaries only where the word itself begins or ends with a letter of a spaced script.
    left = r"(?<![A-Za-z0-9_])" if word[0].isascii() and word[0].isalnum() else ""
    right = r"(?![A-Za-z0-9_])" if word[-1].isascii() and word[-1].isalnum() else ""
    found = re.search(left + re.escape(word) + right, text, re.IGNORECASE)
    return found.span() if found else None
