"""Checkers made of checkers: ``all``, ``any``, ``not``, ``at_least`` and ``loose`` (kind ``composite``), in three-valued logic.

    parts ─→ yes (compliant), no (violation) or unknown (unsure, error) ─┬─ n yes, whatever the unknown turn out to be ──→ compliant
                                                                        ├─ n yes out of reach ─────────────────────────→ violation
                                                                        └─ it depends on the unknown ──→ error if one is, else unsure

That is Kleene's strong logic (1952, section 64): an error is never a pass and never a zero. ``all`` is at least as many as there are parts,
``any`` at least one. The score is the n-th largest of the parts'; for a violation what is unknown counts as 1, so that it never drags down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from norma.base.errors import NormaError, nearest
from norma.base.hashing import digest
from norma.check.binding import parameters
from norma.check.ifeval.data import loose_forms
from norma.check.program import hollow
from norma.check.source_digest import code_digest
from norma.spec import registry
from norma.spec.rule import Rule
from norma.spec.schema import CheckerEntry
from norma.spec.types import Checker, Finding, Item, Status

UNKNOWN = (Status.UNSURE, Status.ERROR)


class Parts(BaseModel):
    """Parameters of a composite."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: list[dict[str, Any]] = Field(min_length=1, description="The parts: mappings with kind (program by default), use and params.")
    n: int | None = Field(default=None, ge=1, description="at_least: how many parts must comply.")


def at_least(findings: Sequence[Finding], n: int) -> Finding:
    """``n`` of the findings are compliant, as far as is known."""
    yes = [f for f in findings if f.status is Status.COMPLIANT]
    unknown = [f for f in findings if f.status in UNKNOWN]
    known = [1.0 if f.score is None and f.status is Status.COMPLIANT else f.score or 0.0 for f in findings if f.status not in UNKNOWN]
    notes = "; ".join(dict.fromkeys(f.note for f in findings if f.note and f.status is not Status.COMPLIANT))
    if len(yes) >= n:
        # The n-th largest of those that comply: each has its own threshold, so a failing part may score higher.
        scores = sorted((1.0 if f.score is None else f.score for f in yes), reverse=True)
        return Finding(Status.COMPLIANT, scores[n - 1], tuple(span for f in yes for span in f.evidence))
    if len(yes) + len(unknown) < n:
        scores = sorted([*known, *(1.0 for _ in unknown)], reverse=True)
        spans = tuple(span for f in findings if f.status is Status.VIOLATION for span in f.evidence)
        return Finding(Status.VIOLATION, scores[n - 1] if n <= len(scores) else 0.0, spans, notes)
    return Finding(Status.ERROR if any(f.status is Status.ERROR for f in unknown) else Status.UNSURE, None, (), notes)


def negated(finding: Finding) -> Finding:
    """Compliant and violation change places; what is unknown stays so."""
    if finding.status in UNKNOWN:
        return finding
    yes = finding.status is Status.COMPLIANT
    score = finding.score if finding.score is not None else float(yes)
    margin = None if finding.margin is None else -finding.margin
    return Finding(Status.VIOLATION if yes else Status.COMPLIANT, 1 - score, finding.evidence, finding.note, margin)


def loosely(checker: Checker, item: Item, response: str) -> Finding:
    """The best that ``checker`` says of the answer and its forms without first line, last line or asterisks (IFEval's loose verdict).

    Evidence is kept only where it points into the answer as it is.
    """
    findings = []
    for form in loose_forms(response):
        if not form.strip():
            continue
        found = registry.run(checker, item, form)
        findings.append(found if form == response else Finding(found.status, found.score, (), found.note, found.margin))
        if found.status is Status.COMPLIANT:
            return findings[-1]
    return at_least(findings, 1) if findings else registry.run(checker, item, response)


@dataclass(frozen=True)
class Composite:
    """Several checkers as one. Each part judges by itself: an undeclared language or a failure of one is unknown, no more."""

    id: str
    parts: tuple[Checker, ...]
    n: int
    digest: str
    languages: frozenset[str] = frozenset()

    def check(self, item: Item, response: str) -> Finding:
        """Judge one response; ``not`` and the others pass no answer that says nothing."""
        said = hollow(item, response)
        if said is not None:
            return said
        if self.id == "loose":
            return loosely(self.parts[0], item, response)
        findings = [registry.run(part, item, response) for part in self.parts]
        return negated(findings[0]) if self.id == "not" else at_least(findings, self.n)


# How many of the parts must comply; None: the parameter n says it.
_NEEDED: dict[str, Callable[[int], int] | None] = {
    "all": lambda k: k,
    "any": lambda k: 1,
    "not": lambda k: 1,
    "loose": lambda k: 1,
    "at_least": None,
}


def build(use: str, params: dict[str, Any], where: str, rule: Rule | None = None) -> Composite:
    """Bind a composite to its parts (entry point ``norma.checkers: composite``). Raises NormaError, placed at ``where``."""
    if use not in _NEEDED:
        raise NormaError(f"unknown composite '{use}'", where=where, mend=nearest(use, _NEEDED))
    values = parameters(Parts, use, params, where)
    parts = tuple(_part(entry, where, number, rule) for number, entry in enumerate(values.of, 1))
    needed = _NEEDED[use]
    if (needed is None) != (values.n is not None):
        raise NormaError(f"'{use}' {'needs' if needed is None else 'takes no'} parameter 'n'", where=where)
    n = values.n if needed is None else needed(len(parts))
    assert n is not None
    if n > len(parts):
        raise NormaError(f"'{use}' asks for {n} of {len(parts)} parts", where=where)
    if use in ("not", "loose") and len(parts) > 1:
        raise NormaError(f"'{use}' takes one part, not {len(parts)}", where=where, mend="Put them into an 'all' or 'any'")
    code = code_digest(Composite, Parts)
    return Composite(use, parts, n, digest(["composite", use, n, [part.digest for part in parts], code]))


def _part(entry: dict[str, Any], where: str, number: int, rule: Rule | None) -> Checker:
    try:
        made = CheckerEntry.model_validate({"id": f"part-{number}", "kind": "program", **entry})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise NormaError(f"part {number}, '{key}': {first['msg']}", where=where, mend="A part has kind, use and params") from None
    checker = registry.build(made, lambda key: where, rule)
    if checker is None:
        raise NormaError(f"part {number}: a checker of kind '{made.kind}' cannot be a part", where=where)
    return checker
