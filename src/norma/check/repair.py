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
from norma.check.closings import ClosingParams, without_pointer
from norma.check.lexicon import OPENINGS, POINTERS, word_set
from norma.check.mentions import SubjectParams, subject_of
from norma.check.openings import OpeningParams, opening_phrase, without_openings
from norma.check.program import ProgramChecker
from norma.check.segment import family, units
from norma.spec import Item, Role, Spec, Status

Edit = Callable[[Item, str, Any], str]
EDITS: dict[str, Edit] = {}

# What the corrector writes; a checker accepts many more.
_SAYS_MISSING = {"en": "the entry does not say what `{subject}` does.", "zh": "该条目没有说明 `{subject}` 的作用。"}
_PREFERRED = {"en": ("Certainly", ": "), "zh": ("您好", "：")}
_POINTING = {"en": " ({phrase}).", "zh": "（{phrase}）。"}
_STOPS = " .。!！,，;；:：、-"
# Words before which a phrase may end, and words that may not be the last.
_JOINTS = word_set("of to in on at by for from with into as and or but if that than which who whose when where")
_DANGLING = _JOINTS | word_set("a an the is are be")


def edits(use: str) -> Callable[[Edit], Edit]:
    """Register the edit that brings an answer to pass the program checker ``use``."""

    def register(edit: Edit) -> Edit:
        EDITS[use] = edit
        return edit

    return register


@edits("polite_opening")
def _open(item: Item, text: str, params: OpeningParams) -> str:
    if not params.present:
        return without_openings(text, params.anywhere())
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


@edits("closing_pointer")
def _point(item: Item, text: str, params: ClosingParams) -> str:
    """Put a pointer before the final stop, in place of one in another language or shape."""
    language = family(item.language)
    known = tuple(phrase for tag in POINTERS for phrase in params.of(tag))
    body = without_pointer(text.rstrip(_STOPS), known).rstrip(_STOPS)
    return body + _POINTING[language].format(phrase=params.of(language)[0])


@edits("length")
def _shorten(item: Item, text: str, params: Any) -> str:
    """Drop clauses from the end until few enough words are left; a pointer to the source at the end stays."""
    language = family(item.language)
    body = without_pointer(text, POINTERS[language])
    closing = _POINTING[language].format(phrase=POINTERS[language][0]) if body != text else "."
    taken = units(closing)
    cut = body
    for bound, han in ((params.max_words, False), (params.max_characters, True)):
        left = None if bound is None else bound - sum(u.weight for u in taken if u.han == han)
        cut = cut[: _end_of(cut, left, han)] if left is not None else cut
    if cut == body:
        return text
    return _tidied(cut, body[len(cut) :]) + closing


def _tidied(cut: str, dropped: str) -> str:
    """A text that was cut anywhere, cut back to its last clause or phrase, with nothing left open."""
    clause = re.match(r"(.+)[,;(—，；（]", cut, re.DOTALL)
    if clause:
        cut = clause.group(1)
    else:
        words, following = cut.split(), dropped.split()[:1]
        joints = [i for i, word in enumerate(words) if word.lower() in _JOINTS and 2 * i >= len(words)]
        if joints and following and following[0].lower() not in _JOINTS:
            cut = " ".join(words[: joints[-1]])
    for opening, closed in (("(", ")"), ("（", "）")):
        cut = cut.rpartition(opening)[0] if cut.count(opening) > cut.count(closed) else cut
    cut = cut.rpartition("`")[0] if cut.count("`") % 2 else cut
    cut = cut.rstrip(" ,;:.([{（，；：、")
    while (words := cut.rsplit(" ", 1))[-1].lower() in _DANGLING and len(words) == 2:
        cut = words[0].rstrip(" ,;:")
    return cut


def _end_of(text: str, most: int, han: bool) -> int:
    """Where the first word (or Chinese character) beyond ``most`` begins; the length of ``text`` when there is none."""
    count = 0
    for unit in units(text):
        count += unit.weight if unit.han == han else 0
        if unit.han == han and count > most:
            return unit.start
    return len(text)


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
            spoken = not checker.languages or family(item.language) in checker.languages
            if edit is not None and spoken and isinstance(checker, ProgramChecker):
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
    return digest([sorted(EDITS), _SAYS_MISSING, {k: list(v) for k, v in _PREFERRED.items()}, _POINTING])
