"""Why is a rule active for this input? The trace of conflict resolution: every step that could decide, in its order, and what it said.

style.polite: overridden
  applies     "facts.about == true" is true
  unless      -
  role        the user may not switch it off: its level is developer
  level       root stands above guideline: safety.refuse is active, so this rule is set aside   <- decided here
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from norma.spec.resolve import ORDER, Edge, trusted
from norma.spec.types import Item, Resolution, Standing

if TYPE_CHECKING:
    from norma.spec.spec import Spec


@dataclass(frozen=True)
class Step:
    """One consideration: the ``step`` of the order, the ``other`` rule or role, what was found, and whether it decided."""

    step: str
    other: str
    text: str
    decided: bool = False


@dataclass(frozen=True)
class Trace:
    """All that was considered for one rule."""

    rule: str
    status: Standing
    reason: str
    step: str
    by: str
    steps: tuple[Step, ...]

    def row(self) -> dict[str, Any]:
        """The trace as one JSON object."""
        steps = [{"step": s.step, "other": s.other, "text": s.text, "decided": s.decided} for s in self.steps]
        return {"rule": self.rule, "status": self.status.value, "reason": self.reason, "step": self.step, "by": self.by, "steps": steps}

    def __str__(self) -> str:
        lines = [f"{self.rule}: {self.status.value}"]
        for s in self.steps:
            lines.append(f"  {s.step or 'undecided':<10} {s.text}" + ("   <- decided here" if s.decided else ""))
        if self.status is Standing.ACTIVE and len(self.steps) > 1:
            lines.append(f"  {'':<10} nothing that stands sets it aside")
        return "\n".join(lines)


def explain(spec: Spec, item: Item) -> list[Trace]:
    """The trace of every rule for ``item``, in the order of the file. Agrees with ``spec.resolve(item)`` by construction: it reads it."""
    found = spec.resolve(item)
    roles = trusted(item, spec.rules, spec.levels)
    traces = []
    for rule in spec.rules:
        own = found.statuses[rule.id]
        steps = [Step("applies", "", _applies(rule.applies, spec.predicate(rule.id, item)), own.step == "applies")]
        if own.status is not Standing.NOT_APPLICABLE:
            considered = [_against(e, found, own.by) for e in spec.beaten_by(rule.id)]
            if rule.id in roles:
                role, allowed = roles[rule.id]
                may = "switches it off (trusted fact)" if allowed else f"may not switch it off: its level is {rule.level}"
                considered.append(Step("role", role, f"the {role} {may}", own.step == "role"))
            considered += [_over(e, loser, found) for loser, e in _won(spec, rule.id)]
            steps += sorted(considered, key=lambda s: ORDER.index(s.step))
        traces.append(Trace(rule.id, own.status, own.reason, own.step, own.by, tuple(steps)))
    return traces


def _applies(text: str, found: bool | str) -> str:
    shown = " ".join(text.split())
    if isinstance(found, str):
        return f"{shown} is unknown: {found}"
    return "always" if shown == "true" else f"{shown} is {str(found).lower()}"


def _against(edge: Edge, found: Resolution, by: str) -> Step:
    """What a rule that could set this one aside did."""
    other = found.statuses[edge.winner]
    head = f"{edge.winner} is {other.status.value}"
    if edge.mutual:
        text = f"conflict with {edge.winner} ({edge.why}): {head}"
        return Step("", edge.winner, text, by == edge.winner)
    outcomes = {Standing.ACTIVE: "this rule is set aside", Standing.UNRESOLVED: "this rule cannot be settled"}
    outcome = outcomes.get(other.status, "it sets nothing aside")
    return Step(edge.step, edge.winner, f"{edge.why}: {head}, {outcome}", by == edge.winner)


def _over(edge: Edge, loser: str, found: Resolution) -> Step:
    return Step(edge.step, loser, f"over {loser} ({edge.why}), which is {found.statuses[loser].status.value}")


def _won(spec: Spec, rule: str) -> list[tuple[str, Edge]]:
    """The pairs that this rule wins."""
    return [(loser.id, e) for loser in spec.rules for e in spec.beaten_by(loser.id) if e.winner == rule and not e.mutual]
