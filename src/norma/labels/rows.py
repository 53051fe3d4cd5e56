"""One mark: who says what of one answer under one rule. The same row for people, checkers and judges.

A label's key is a digest of item, response, rule (and its meaning), annotator, checker and revision: the same mark added twice, because
a run was killed between the mark and its receipt, is one row. A changed mind is a new revision that names the row it supersedes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from norma.base.errors import NormaError, nearest
from norma.base.hashing import digest
from norma.spec.types import Spans, Status, Verdict

_VERDICTS = frozenset(s.value for s in Status)


def response_hash(response: str) -> str:
    """The identity of an answer's text."""
    return digest(["response", response])


@dataclass(frozen=True)
class Label:
    """A mark. ``verdict`` is a Status; ``unsure`` is missing data, ``not_applicable`` a category of its own."""

    item: str
    response: str
    rule: str
    rule_hash: str  # the meaning that was marked: a changed meaning makes the mark stale
    annotator: str  # a person's name, or checker:<id>
    verdict: str
    source: str = "human"  # human, checker, judge
    language: str = ""
    score: float | None = None
    spans: Spans = ()
    corrected: str | None = None  # the answer as it should have been
    rationale: str = ""
    checker: str = ""  # digest of the checker that marked
    revision: int = 0
    seconds: float | None = None  # time that a person took
    queue: str = ""  # why this answer was shown: uniform, uncertain, rare, diverse
    inclusion_probability: float | None = None
    guideline: str = ""  # digest of the guideline that the person read
    gold: bool = False
    supersedes: str | None = None  # key of the row that this one takes the place of

    def __post_init__(self) -> None:
        if self.verdict not in _VERDICTS:
            raise NormaError(f"'{self.verdict}' is not a verdict", mend=nearest(self.verdict, _VERDICTS))
        if self.inclusion_probability is not None and not 0 < self.inclusion_probability <= 1:
            raise NormaError(f"an inclusion probability lies above 0 and up to 1, not {self.inclusion_probability}")
        object.__setattr__(self, "verdict", str(self.verdict))
        object.__setattr__(self, "spans", tuple((int(start), int(end)) for start, end in self.spans))

    @cached_property
    def response_hash(self) -> str:
        return response_hash(self.response)

    @cached_property
    def key(self) -> str:
        """What makes this mark itself and no other."""
        return digest([self.item, self.response_hash, self.rule, self.rule_hash, self.annotator, self.checker, self.revision])

    def row(self) -> dict[str, Any]:
        """The label as one JSON object, key and response hash included."""
        values = {name: getattr(self, name) for name in _NAMES}
        return {"key": self.key, "response_hash": self.response_hash, **values, "spans": [list(span) for span in self.spans]}

    @classmethod
    def from_row(cls, row: Mapping[str, Any], where: object = None) -> Label:
        """The label that ``row()`` wrote, or that a person wrote by hand without key and hashes; a wrong key is an error."""
        for name in row:
            if name not in _NAMES and name not in ("key", "response_hash"):
                raise NormaError(f"unknown key '{name}' in a label", where=where, mend=nearest(name, _NAMES))
        try:
            label = cls(**{name: value for name, value in row.items() if name in _NAMES})
        except (TypeError, ValueError) as error:
            raise NormaError(f"not a label ({error})".replace("Label.__init__() ", ""), where=where) from None
        except NormaError as error:
            raise NormaError(error.what, where=where, mend=error.mend) from None
        if row.get("key", label.key) != label.key:
            raise NormaError(
                "the key of this label does not fit its contents", where=where, mend="Export the labels again, or leave 'key' out"
            )
        return label


_NAMES = tuple(field.name for field in fields(Label))


def current(labels: Iterable[Label]) -> list[Label]:
    """The labels that no other of them supersedes, in their order."""
    rows = list(labels)
    superseded = {label.supersedes for label in rows if label.supersedes}
    return [label for label in rows if label.key not in superseded] if superseded else rows


def marks(verdicts: Iterable[Verdict], response: str, language: str = "") -> list[Label]:
    """What checkers said of one answer, as labels of the annotators ``checker:<id>``."""
    return [
        Label(
            item=v.item,
            response=response,
            rule=v.rule,
            rule_hash=v.rule_hash,
            annotator=f"checker:{v.checker}",
            verdict=v.status.value,
            source="checker",
            language=language,
            score=v.score,
            spans=v.evidence,
            rationale=v.note,
            checker=v.checker_digest,
        )
        for v in verdicts
    ]
