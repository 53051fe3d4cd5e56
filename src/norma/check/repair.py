"""Correcting an answer by program: the smallest edit per rule, kept only if the whole answer is better for it.

    answer ─→ for each violated rule: its checker's edit ─→ marked again ─→ accepted, or None (left to people)

The edits are the "checker" annotator's corrections; a person's correction goes through the same acceptance.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from difflib import SequenceMatcher
from typing import Any

from norma.base.hashing import digest
from norma.check.lexicon import OPENINGS
from norma.check.mentions import SubjectParams, subject_of
from norma.check.openings import OpeningParams, opening_phrase
from norma.check.program import ProgramChecker
from norma.check.segment import family
from norma.spec import Item, Role, Spec, Status

Edit = Callable[[Item, str, Any], str]
EDITS: dict[str, Edit] = {}

# What the corrector writes; a checker accepts many more.
_SAYS_MISSING = {"en": "the entry does not say what `{subject}` does.", "zh": "该条目没有说明 `{subject}` 的作用。"}
_PREFERRED = {"en": ("Certainly", ": "), "zh": ("您好", "：")}


def edits(use: str) -> Callable[[Edit], Edit]:
    """Register the edit that brings an answer to pass the program checker ``use``."""

    def register(edit: Edit) -> Edit:
        EDITS[use] = edit
        return edit

    return register


@edits("polite_opening")
def _open(item: Item, text: str, params: OpeningParams) -> str:
    language = family(item.language)
    phrases = params.phrases.get(language) or OPENINGS[language]
    phrase, mark = _PREFERRED[language]
    return f"{phrase if phrase in phrases or phrase.lower() in phrases else phrases[0]}{mark}{_without_opening(text, phrases)}"


def _without_opening(text: str, phrases: tuple[str, ...]) -> str:
    found = opening_phrase(text, phrases)
    return text[len(found) :].lstrip(" :：,，!！") if found else text


@edits("names_subject")
def _name(item: Item, text: str, params: SubjectParams) -> str:
    """Name the subject after the opening, or in front."""
    subject = subject_of(item, params.pattern)
    phrases = OPENINGS[family(item.language)]
    found = opening_phrase(text, phrases)
    at = len(text) - len(text[len(found) :].lstrip(" :：,，!！")) if found else 0
    return f"{text[:at]}`{subject}`: {text[at:]}"


@edits("says_missing")
def _deny(item: Item, text: str, params: Any) -> str:
    subject = subject_of(item, "`([^`]+)`")
    sentence = _SAYS_MISSING[family(item.language)].format(subject=subject)
    return sentence[0].upper() + sentence[1:]


@edits("ends_with_stop")
def _stop(item: Item, text: str, params: Any) -> str:
    return text.rstrip(" ,;:、，；：-") + "."


@edits("sentences")
def _first_sentence(item: Item, text: str, params: Any) -> str:
    found = re.match(r".*?(?:[.!?](?=\s+[A-Z`\"'(])|[。！？])", text, re.DOTALL)
    return found.group() if found else text.replace("\n", " ")


@edits("length")
def _shorten(item: Item, text: str, params: Any) -> str:
    """Drop clauses from the end until few enough words are left."""
    limit = params.max_words or 30
    words = text.split()
    cut = " ".join(words[:limit])
    clause = re.match(r"(.+)[,;(—]", cut, re.DOTALL)
    return (clause.group(1) if clause else cut).rstrip(" ,;:") + "."


def marks(spec: Spec, item: Item, response: str, role: Role = "train") -> dict[str, Status]:
    """Rule → status of one answer under the checkers of a role; a rule with several takes the worst."""
    worst: dict[str, Status] = {}
    for verdict in spec.verdicts(item, response, role):
        if verdict.rule not in worst or verdict.status is not Status.COMPLIANT:
            worst[verdict.rule] = verdict.status
    return worst


def repair(
    spec: Spec, item: Item, response: str, rules: Collection[str] | None = None, *, role: Role = "train", max_edit_ratio: float = 1.0
) -> str | None:
    """``response`` edited to keep ``rules`` (all active ones when None), or None when that is not possible.

    Accepted only when every one of the rules is kept, no other active rule gets worse, and at most ``max_edit_ratio`` of the
    text was changed (a rule's own ``correct.max_edit_ratio`` is the caller's to pass).
    """
    before = marks(spec, item, response, role)
    wanted = set(rules if rules is not None else spec.resolve(item).active) & set(before)
    checkers = spec.checkers(role)
    text, now = response, before
    # The order of the file; a second round, because one edit can undo another (an opening before a capital letter).
    for rule in [*before, *before]:
        if rule not in wanted or now[rule] is Status.COMPLIANT:
            continue
        for checker in checkers.get(rule, []):
            edit = EDITS.get(checker.id) if isinstance(checker, ProgramChecker) else None
            if edit is not None and isinstance(checker, ProgramChecker):
                text = edit(item, text, checker.params)
        now = marks(spec, item, text, role)
    if any(now[r] is not Status.COMPLIANT for r in wanted):
        return None
    if any(now[r] is not Status.COMPLIANT and before[r] is Status.COMPLIANT for r in before):
        return None
    changed = 1 - SequenceMatcher(None, response, text, autojunk=False).ratio()
    return text if changed <= max_edit_ratio else None


def corrector_digest() -> str:
    """What the corrector writes, as a digest: part of a correction's provenance."""
    return digest([sorted(EDITS), _SAYS_MISSING, {k: list(v) for k, v in _PREFERRED.items()}])
