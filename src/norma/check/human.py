"""Kind ``human``: the verdict that people gave of this very answer under this very meaning of the rule, from a label store.

    label store (path or URL) ─→ newest human marks of the answer ─┬─ none ────────────→ unsure
                                                                  ├─ most say one thing ─→ that, with the share as score
                                                                  └─ a tie, or "unsure" ─→ unsure

Marks belong to a rule's meaning hash: after a change of meaning there are none. Gold marks, where there are any, decide alone.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.check.binding import parameters
from norma.check.source_digest import code_digest
from norma.labels import Label, LabelStore
from norma.labels.rows import response_hash
from norma.spec.rule import Rule
from norma.spec.types import Finding, Item, Status

_DECIDED = (Status.COMPLIANT, Status.VIOLATION)


class HumanParams(BaseModel):
    """Parameters of people's marks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    annotators: tuple[str, ...] = Field(default=(), description="Whose marks count; none: everybody's.")
    least: int = Field(default=1, ge=1, description="Fewest people who must have marked an answer.")


@dataclass(frozen=True)
class Human:
    """People as a checker. The digest names the rule's meaning and the parameters, not the marks: those grow, and each is a row."""

    id: str
    store: str
    rule: str
    rule_hash: str
    params: HumanParams
    digest: str
    languages: frozenset[str] = frozenset()
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def check(self, item: Item, response: str) -> Finding:
        """What people said of this answer; unsure where nobody did."""
        with self._lock, LabelStore(self.store) as store:
            rows = store.rows(rule=self.rule, rule_hash=self.rule_hash, item=item.id, source="human", current=True)
        return agreed(self._counting(rows, response), self.params.least)

    def _counting(self, rows: list[Label], response: str) -> list[Label]:
        """Marks of this answer by people who count; the newest of each; gold ones alone where there are any."""
        wanted = response_hash(response)
        mine = [
            row for row in rows if row.response_hash == wanted and (not self.params.annotators or row.annotator in self.params.annotators)
        ]
        gold = [row for row in mine if row.gold]
        newest = {row.annotator: row for row in sorted(gold or mine, key=lambda row: row.revision)}
        return list(newest.values())


def agreed(rows: list[Label], least: int = 1) -> Finding:
    """The verdict of the majority of those who decided; a tie is unsure."""
    votes = Counter(Status(row.verdict) for row in rows if row.verdict in _DECIDED)
    total = sum(votes.values())
    if total < least:
        return Finding(Status.UNSURE, note="nobody has marked this answer" if not rows else f"{total} marks, at least {least} are needed")
    share = votes[Status.COMPLIANT] / total
    if 2 * votes[Status.COMPLIANT] == total:
        return Finding(Status.UNSURE, note=f"{total} people are divided evenly")
    chosen = Status.COMPLIANT if share > 0.5 else Status.VIOLATION
    spans = tuple(dict.fromkeys(span for row in rows if row.verdict == chosen for span in row.spans))
    return Finding(chosen, share, spans, f"{votes[chosen]} of {total} people")


def build(use: str, params: dict[str, Any], where: str, rule: Rule | None = None) -> Human:
    """Bind the label store ``use``, a path or URL (entry point ``norma.checkers: human``)."""
    values = parameters(HumanParams, "human", params, where)
    if not use:
        raise NormaError(
            "the checker 'human' has parameters but no store", where=where, mend="Add 'use:' with the path or URL of a label store"
        )
    if rule is None:
        raise NormaError("people's marks belong to a rule, and this checker has none", where=where, mend="Use it in a spec")
    made = digest(["human", rule.id, rule.hash, values.model_dump(mode="json"), code_digest(Human, agreed, HumanParams)])
    return Human("human", use, rule.id, rule.hash, values, made)
