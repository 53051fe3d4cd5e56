"""The words every room uses when it speaks of norms: an input, an answer's finding, a verdict, a reward.

    Item x ──resolve──→ Resolution (which rules are active, and why)
    Item x, response y ──Checker──→ Finding ──wrapped by the spec──→ Verdict (rule, hashes, role) ──compose──→ Reward R(x, y)

Everything is frozen and plain, so that it can be stored as one JSON row and replayed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypedDict

Spans = tuple[tuple[int, int], ...]  # half-open character ranges into the response


class Message(TypedDict):
    """One turn of a conversation; ``role`` is system, developer, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Item:
    """One input x. ``facts`` are trusted metadata: they come from the data set, never from message text."""

    id: str
    messages: tuple[Message, ...]
    language: str = "en"  # BCP-47, the language of the question
    facts: Mapping[str, Any] = field(default_factory=dict)
    cluster: str = ""  # the prompt's source (document, entry) for statistics; "" means the id
    reference: str | None = None

    @property
    def source(self) -> str:
        """The cluster of this item in every interval and test."""
        return self.cluster or self.id

    @property
    def user(self) -> str:
        """The text of the last user message, or ""."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")


class Status(StrEnum):
    """What is known of one answer under one rule. An error is never a pass and never a zero."""

    COMPLIANT = "compliant"
    VIOLATION = "violation"
    NOT_APPLICABLE = "not_applicable"  # from conflict resolution only, never from a program checker
    UNSURE = "unsure"
    ERROR = "error"


class Standing(StrEnum):
    """What conflict resolution says of one rule for one input."""

    ACTIVE = "active"
    OVERRIDDEN = "overridden"
    NOT_APPLICABLE = "not_applicable"
    UNRESOLVED = "unresolved"


@dataclass(frozen=True)
class Finding:
    """What a checker alone can say of a response. ``score`` is in [0, 1] (1 is best); None: taken from the status (1 or 0).

    ``evidence`` are spans of the response, ``margin`` the signed distance from the threshold (positive: compliant).
    """

    status: Status
    score: float | None = None
    evidence: Spans = ()
    note: str = ""
    margin: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A finding with everything needed to replay it: which rule (and its meaning hash), which checker (and its digest), which item."""

    rule: str
    rule_hash: str
    item: str
    checker: str
    checker_digest: str
    role: str
    status: Status
    score: float | None
    evidence: Spans = ()
    note: str = ""
    margin: float | None = None

    def row(self) -> dict[str, Any]:
        """The verdict as one JSON object."""
        return {
            "rule": self.rule,
            "rule_hash": self.rule_hash,
            "item": self.item,
            "checker": self.checker,
            "checker_digest": self.checker_digest,
            "role": self.role,
            "status": self.status.value,
            "score": self.score,
            "evidence": [list(span) for span in self.evidence],
            "note": self.note,
            "margin": self.margin,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Verdict:
        """The verdict that ``row()`` wrote; further keys of the row are ignored."""
        return cls(
            rule=row["rule"],
            rule_hash=row["rule_hash"],
            item=row["item"],
            checker=row["checker"],
            checker_digest=row["checker_digest"],
            role=row["role"],
            status=Status(row["status"]),
            score=row["score"],
            evidence=tuple((int(a), int(b)) for a, b in row.get("evidence", ())),
            note=row.get("note", ""),
            margin=row.get("margin"),
        )


class CheckerFailure(Exception):
    """Raised by a checker that cannot decide for a reason of its own (a failed request, unreadable output): becomes an ERROR verdict."""


class Checker(Protocol):
    """One bound checker: the rule's parameters are already inside it."""

    id: str
    digest: str  # covers code, parameters, model, prompt, threshold
    languages: frozenset[str]  # BCP-47; empty means every language

    def check(self, item: Item, response: str) -> Finding: ...


class CheckerKind(Protocol):
    """What a ``norma.checkers`` entry point gives: binds checker ``use`` to ``params`` (JSON values).

    Raises NormaError (with ``where``, and the nearest known name as the mend) for an unknown ``use`` or wrong parameters.
    """

    def __call__(self, use: str, params: dict[str, Any], where: str) -> Checker: ...


@dataclass(frozen=True)
class RuleStatus:
    """The standing of one rule for one input: ``reason`` in words, ``by`` the rule or role that decided it (or "").

    ``step``: which step of the order decided: applies, unless, role, level, overrides, priority, must; "" where none had to.
    """

    status: Standing
    reason: str
    by: str = ""
    step: str = ""


@dataclass(frozen=True)
class Resolution:
    """Every rule's standing for one input, in the order of the file."""

    statuses: Mapping[str, RuleStatus]
    active: tuple[str, ...]

    @property
    def unresolved(self) -> tuple[str, ...]:
        """Rules that nobody can decide for this input: left out of the reward, counted in the report."""
        return tuple(rule for rule, s in self.statuses.items() if s.status is Standing.UNRESOLVED)


@dataclass(frozen=True)
class Reward:
    """R(x, y) of one answer, with all that it was made from. ``value`` is None when the answer is masked (never zero instead)."""

    value: float | None
    parts: Mapping[str, float]  # rule -> score in [0, 1]
    active: tuple[str, ...]
    masked_reason: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)  # rule -> weight, as used
    lambdas: Mapping[str, float] = field(default_factory=dict)  # rule -> Lagrange multiplier, as used
    terms: Mapping[str, float] = field(default_factory=dict)  # "mean", "gate", "cost", "rank": the steps from parts to value

    def row(self) -> dict[str, Any]:
        """The reward as one JSON object."""
        return {
            "value": self.value,
            "parts": dict(self.parts),
            "active": list(self.active),
            "masked_reason": self.masked_reason,
            "weights": dict(self.weights),
            "lambdas": dict(self.lambdas),
            "terms": dict(self.terms),
        }
