"""Where checkers come from: kinds are entry points of the group ``norma.checkers`` (kind = "module:factory"), so that this floor
builds checkers that live higher up, or in other people's packages, without importing them by name.

    {kind: program, use: max_words, params: {...}} ──kind──→ factory ──use, params, where──→ Checker ──guarded──→ Verdict
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import signature
from typing import TYPE_CHECKING

import re2

from norma.base.errors import NormaError, nearest
from norma.spec import languages
from norma.spec.types import Checker, CheckerFailure, CheckerKind, Finding, Item, Status

if TYPE_CHECKING:
    from norma.spec.rule import Rule
    from norma.spec.schema import CheckerEntry

GROUP = "norma.checkers"
PEOPLE = "human"  # decided in the label store; without one named in `use` there is nothing to build

_registered: dict[str, CheckerKind] = {}

# What a checker may raise because of an answer or a request; anything else is a bug and is not hidden.
_FAILURES = (CheckerFailure, ValueError, LookupError, ArithmeticError, OSError, re2.error)


def register(kind: str, factory: CheckerKind) -> None:
    """Add a kind of checker in this process (tests, notebooks); packages use the entry-point group instead."""
    _registered[kind] = factory


def unregister(kind: str) -> None:
    """Take back what ``register`` added."""
    _registered.pop(kind, None)


@cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def kinds() -> list[str]:
    """The names of all known kinds, people included."""
    return sorted({*_registered, *_installed(), PEOPLE})


def build(entry: CheckerEntry, place: Callable[[str], str], rule: Rule | None = None) -> Checker | None:
    """The checker that an entry asks for; None for people without a store. ``place(key)`` is file:line:column.

    A factory that has a parameter ``rule`` is given the rule: judges read its wording, people's marks belong to its meaning.
    Raises NormaError for unknown names.
    """
    if entry.kind == PEOPLE and not (entry.use or entry.params):
        return None
    factory = _registered.get(entry.kind)
    if factory is None:
        point = _installed().get(entry.kind)
        if point is None:
            installed = "" if _installed() else " (no checkers are installed: pip install norma-lm, or pip install -e . in the repository)"
            raise NormaError(f"unknown kind of checker '{entry.kind}'{installed}", where=place("kind"), mend=nearest(entry.kind, kinds()))
        factory = point.load()
    params = dict(entry.params)
    if entry.votes is not None:
        params["votes"] = entry.votes
    if "rule" in signature(factory).parameters:
        return factory(entry.use, params, place("use"), rule=rule)  # type: ignore[call-arg]
    return factory(entry.use, params, place("use"))


def run(checker: Checker, item: Item, response: str) -> Finding:
    """What ``checker`` says, made safe: no pass where it could not judge, no not_applicable, a score wherever there is a decision."""
    if checker.languages and not languages.best(item.language, sorted(checker.languages)):
        return Finding(Status.ERROR, note=f"the checker does not know the language {item.language}")
    try:
        finding = checker.check(item, response)
    except _FAILURES as error:
        return Finding(Status.ERROR, note=f"{type(error).__name__}: {error}")
    if finding.status is Status.NOT_APPLICABLE:
        return Finding(Status.ERROR, note="the checker returned not_applicable, which only conflict resolution may say")
    if finding.status in (Status.UNSURE, Status.ERROR):
        return Finding(finding.status, None, finding.evidence, finding.note, finding.margin)
    score = finding.score if finding.score is not None else 1.0 if finding.status is Status.COMPLIANT else 0.0
    if not 0.0 <= score <= 1.0:  # NaN too
        return Finding(Status.ERROR, note=f"the checker's score {score} is outside [0, 1]")
    return Finding(finding.status, float(score), finding.evidence, finding.note, finding.margin)
