"""Which rules are active for one input, and why: deterministic, explained, without looking at any answer.

Two rules meet when one names the other in `unless`, `overrides` or `conflicts_with`. Who stands is decided by the first of these; all but
the role's word, which comes with the item, are fixed once:

    unless ─→ role (trusted fact) ─→ level ─→ overrides (within a level) ─→ priority ─→ must ─→ nobody: the pair is unresolved

For an input, `applies` is evaluated (false: not_applicable, unknown: unresolved) and trusted facts may switch rules off
(``facts["overrides"] = {"style.polite": "developer"}``: a role switches off rules of its own level or lower, never higher
ones). What is left is settled along the fixed edges: a rule stands when everything that would beat it is out; it is out when
something that beats it stands. What can be settled neither way (an undecided pair, a circle, a rival whose `applies` is
unknown) is unresolved: never a pass, always counted.
This is the grounded extension of an argumentation framework (Dung 1995): unique, whatever the order of rules in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from norma.base.errors import NormaError, nearest
from norma.spec.expression import Expression, variables
from norma.spec.schema import RuleEntry
from norma.spec.types import Item, Resolution, RuleStatus, Standing
from norma.spec.values import Unknown

ORDER = ("unless", "role", "level", "overrides", "priority", "must", "")  # "": nobody decides
OVERRIDES = "overrides"  # the key of `facts` that holds trusted overrides: {rule: role}


@dataclass(frozen=True)
class Edge:
    """``winner`` beats the rule this edge belongs to; ``step`` decided, ``why`` says it in words. ``mutual``: nobody wins."""

    winner: str
    why: str
    step: str
    mutual: bool = False


def edges(rules: Sequence[RuleEntry], levels: Sequence[str]) -> dict[str, tuple[Edge, ...]]:
    """For each rule, who would set it aside. Independent of any input."""
    by_id = {rule.id: rule for rule in rules}
    place = {rule.id: i for i, rule in enumerate(rules)}
    pairs = {
        tuple(sorted((rule.id, other), key=place.__getitem__))
        for rule in rules
        for other in (*rule.unless, *rule.overrides, *rule.conflicts_with)
    }
    result: dict[str, list[Edge]] = {rule.id: [] for rule in rules}
    for first, second in sorted(pairs, key=lambda pair: (place[pair[0]], place[pair[1]])):
        winner, loser, step, why = _decide(by_id[first], by_id[second], levels)
        if winner is None:
            result[first].append(Edge(second, why, step, mutual=True))
            result[second].append(Edge(first, why, step, mutual=True))
        else:
            result[loser].append(Edge(winner, why, step))
    return {rule: tuple(found) for rule, found in result.items()}


def _decide(a: RuleEntry, b: RuleEntry, levels: Sequence[str]) -> tuple[str | None, str, str, str]:
    """(winner, loser, step, why) of a pair; without a winner (None, "", "", why)."""
    for x, y in ((a, b), (b, a)):
        if x.id in y.unless:
            return x.id, y.id, "unless", "unless"
    rank_a, rank_b = levels.index(a.level), levels.index(b.level)
    if rank_a != rank_b:
        high, low = (a, b) if rank_a < rank_b else (b, a)
        return high.id, low.id, "level", f"level {high.level} stands above {low.level}"
    for x, y in ((a, b), (b, a)):
        if y.id in x.overrides:
            return x.id, y.id, "overrides", "overrides"
    if a.priority != b.priority:
        high, low = (a, b) if a.priority > b.priority else (b, a)
        return high.id, low.id, "priority", f"priority {high.priority} stands above {low.priority}"
    if a.must != b.must:
        high, low = (a, b) if a.must else (b, a)
        return high.id, low.id, "must", "a must stands above a guideline"
    return None, "", "", "same level, priority and must"


def resolve(
    item: Item,
    rules: Sequence[RuleEntry],
    levels: Sequence[str],
    expressions: Mapping[str, Expression],
    beaten_by: Mapping[str, tuple[Edge, ...]],
) -> Resolution:
    """The standing of every rule for ``item``."""
    scope = variables(item)
    waived = trusted(item, rules, levels)
    statuses: dict[str, RuleStatus] = {}
    undecided: list[str] = []
    clouded: dict[str, str] = {}  # rule -> why its own applicability is unknown
    ignored: dict[str, str] = {}  # rule -> role that lacks the authority to switch it off
    for rule in rules:
        role, allowed = waived.get(rule.id, ("", False))
        try:
            applies = expressions[rule.id](scope)
        except Unknown as error:
            clouded[rule.id] = f"unknown whether it applies: {error}"
            applies = True
        if not applies:
            statuses[rule.id] = RuleStatus(Standing.NOT_APPLICABLE, "applies is false", step="applies")
        elif role and allowed:
            statuses[rule.id] = RuleStatus(Standing.OVERRIDDEN, f"switched off by the {role} (trusted fact)", role, "role")
        else:
            if role:
                ignored[rule.id] = role
            undecided.append(rule.id)
    _settle(undecided, beaten_by, clouded, ignored, statuses)
    for name, status in statuses.items():
        if status.status is Standing.OVERRIDDEN:  # of several that set it aside, the earliest step is named, whatever was settled first
            stands = [e for e in beaten_by[name] if statuses[e.winner].status is Standing.ACTIVE]
            first = min(stands, key=lambda e: (ORDER.index(e.step), e.winner), default=None)
            if first is not None and (ORDER.index(first.step), first.winner) < (ORDER.index(status.step), status.by):
                statuses[name] = _set_aside(first)
    ordered = {rule.id: statuses[rule.id] for rule in rules}
    return Resolution(ordered, tuple(rule for rule, s in ordered.items() if s.status is Standing.ACTIVE))


def _settle(
    undecided: list[str],
    beaten_by: Mapping[str, tuple[Edge, ...]],
    clouded: Mapping[str, str],
    ignored: Mapping[str, str],
    statuses: dict[str, RuleStatus],
) -> None:
    """Label rules as standing or out until nothing changes; the rest is unresolved."""
    waiting = list(undecided)
    progress = True
    while waiting and progress:
        progress = False
        for rule in list(waiting):
            rivals = [e for e in beaten_by[rule] if _may_stand(e.winner, statuses)]
            victor = next((e for e in rivals if e.winner in statuses), None)
            if victor is not None:
                statuses[rule] = _set_aside(victor)
            elif not rivals and rule not in clouded:
                note = f"; the {ignored[rule]} may not switch it off" if rule in ignored else ""
                statuses[rule] = RuleStatus(Standing.ACTIVE, "applies" + note)
            else:
                continue
            waiting.remove(rule)
            progress = True
    for rule in waiting:
        rivals = [e for e in beaten_by[rule] if _may_stand(e.winner, statuses)]
        if rule in clouded:
            statuses[rule] = RuleStatus(Standing.UNRESOLVED, clouded[rule], step="applies")
        else:
            rival = next((e for e in rivals if e.mutual), rivals[0])
            what = "conflict with" if rival.mutual else "unsettled rival"
            statuses[rule] = RuleStatus(Standing.UNRESOLVED, f"{what} {rival.winner} ({rival.why})", rival.winner, rival.step)


def _set_aside(victor: Edge) -> RuleStatus:
    return RuleStatus(Standing.OVERRIDDEN, f"set aside by {victor.winner} ({victor.why})", victor.winner, victor.step)


def _may_stand(rule: str, statuses: Mapping[str, RuleStatus]) -> bool:
    status = statuses.get(rule)
    return status is None or status.status in (Standing.ACTIVE, Standing.UNRESOLVED)


def trusted(item: Item, rules: Sequence[RuleEntry], levels: Sequence[str]) -> dict[str, tuple[str, bool]]:
    """{rule: (role, may it?)} from the item's facts. Raises NormaError for names that do not exist: trusted metadata must be right."""
    overrides: Any = item.facts.get(OVERRIDES)
    if not overrides:
        return {}
    where = f"item {item.id}"
    if not isinstance(overrides, Mapping):
        raise NormaError("the fact 'overrides' must map rule ids to roles", where=where, mend='Write {"rule.id": "developer"}')
    by_id = {rule.id: rule for rule in rules}
    result = {}
    for rule, role in overrides.items():
        if rule not in by_id:
            raise NormaError(f"the fact 'overrides' names an unknown rule '{rule}'", where=where, mend=nearest(str(rule), by_id))
        if role not in levels:
            raise NormaError(f"the fact 'overrides' names an unknown role '{role}'", where=where, mend=nearest(str(role), levels))
        result[rule] = (role, levels.index(role) <= levels.index(by_id[rule].level))
    return result
