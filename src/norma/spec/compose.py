"""R(x, y): from the rules' scores of one answer, or of a group of answers to one input, to rewards. Pure functions, no state.

    scores of the active rules ─┬─ unsure or error ──────────────→ masked (None), never zero
                                ├─ a violated gate ──────────────→ -1 - kappa * worst violation   graded: a failing group still learns
                                ├─ weighted_mean ────────────────→ R0 = sum w s / sum w
                                │    with constraints ───────────→ (R0 - sum lambda c) / (1 + sum lambda)  c = 1 - score
                                └─ lexicographic (group) ────────→ rank of the tier vector, in [0, 1]

Applicability comes from the input alone: an answer cannot earn reward by making a rule not apply. The multipliers lambda are
arguments: they live in the trainer's checkpoint; ``ascend`` is their update. Sources: Tessler et al. 2018 (reward-constrained
policies, lambda by projected ascent); Ray et al. 2019 for the division by 1 + sum lambda, which keeps the reward's scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from norma.spec.schema import Mode, Objective
from norma.spec.types import Reward, Status, Verdict


@dataclass(frozen=True)
class Term:
    """A rule's part in R: its mode and weight, and its tier (0 is the highest) for lexicographic order."""

    mode: Mode
    weight: float = 1.0
    tier: int = 0


@dataclass(frozen=True)
class Plan:
    """How a spec composes R."""

    terms: Mapping[str, Term]
    objective: Objective = Objective.WEIGHTED_MEAN
    kappa: float = 1.0
    grid: float = 0.05


@dataclass(frozen=True)
class Answer:
    """The scored verdicts of one answer. ``violated``: rules broken, whatever the score; ``missing``: rule -> why there is no score."""

    scores: Mapping[str, float]
    violated: frozenset[str] = frozenset()
    missing: Mapping[str, str] = field(default_factory=dict)


def answer(verdicts: Sequence[Verdict], rules: Sequence[str]) -> Answer:
    """Verdicts of one answer, reduced to one score for each of ``rules``: the LOWEST of its checkers (all of them must be content)."""
    scores: dict[str, float] = {}
    missing: dict[str, str] = {}
    violated: set[str] = set()
    wanted = set(rules)
    for v in verdicts:
        if v.role == "heldout":
            raise ValueError(f"a held-out verdict ({v.rule}, {v.checker}) must not enter a reward")
        if v.rule not in wanted:
            continue
        if v.status is Status.NOT_APPLICABLE:
            raise ValueError(f"the verdict on {v.rule} says not_applicable, but the rule is active for {v.item}")
        if v.status in (Status.UNSURE, Status.ERROR) or v.score is None:
            missing[v.rule] = f"{v.status.value} from {v.checker}" + (f": {v.note}" if v.note else "")
            continue
        scores[v.rule] = min(v.score, scores.get(v.rule, 1.0))
        if v.status is Status.VIOLATION:
            violated.add(v.rule)
    for rule in rules:
        if rule not in scores and rule not in missing:
            missing[rule] = "no verdict"
    return Answer({r: s for r, s in scores.items() if r not in missing}, frozenset(violated), missing)


def compose(plan: Plan, group: Sequence[Answer], active: Sequence[str], lambdas: Mapping[str, float] | None = None) -> list[Reward]:
    """Rewards of a group of answers to ONE input. ``active``: the rules that count (active for the input, with a checker).

    ``lambdas``: Lagrange multipliers of constraint rules (absent: 0). Only lexicographic order looks across the group.
    """
    counted = tuple(r for r in active if plan.terms[r].mode is not Mode.NONE)
    used = {r: (lambdas or {}).get(r, 0.0) for r in counted if plan.terms[r].mode is Mode.CONSTRAINT}
    weights = {r: plan.terms[r].weight for r in counted}
    masks = [_mask(a, counted) for a in group]
    terms: list[dict[str, float]]
    values: list[float | None]
    if plan.objective is Objective.LEXICOGRAPHIC:
        values, masks = _lexicographic(plan, group, counted, masks)
        terms = [{} if value is None else {"rank": value} for value in values]
    else:
        terms = [{} if masked else _terms(plan, a, counted, used) for a, masked in zip(group, masks, strict=True)]
        values = [_value(t, used) if t else None for t in terms]
    return [
        Reward(value, {r: a.scores[r] for r in counted if r in a.scores}, counted, masked, weights, used, t)
        for a, value, masked, t in zip(group, values, masks, terms, strict=True)
    ]


def _mask(a: Answer, counted: Sequence[str]) -> str | None:
    if not counted:
        return "no active rule has a part in the reward"
    return next((f"{rule}: {a.missing[rule]}" for rule in counted if rule in a.missing), None)


def weighted_mean(scores: Sequence[tuple[float, float]]) -> float:
    """sum w s / sum w over (score, weight); 1 when nothing weighs (then only gates and constraints speak)."""
    total = sum(weight for _, weight in scores)
    return sum(score * weight for score, weight in scores) / total if total > 0 else 1.0


def _terms(plan: Plan, a: Answer, counted: Sequence[str], lambdas: Mapping[str, float]) -> dict[str, float]:
    """The steps from scores to the value: gate (when violated), else mean and cost."""
    broken = [1.0 - a.scores[r] for r in counted if plan.terms[r].mode is Mode.GATE and r in a.violated]
    mean = weighted_mean([(a.scores[r], plan.terms[r].weight) for r in counted if plan.terms[r].mode is Mode.WEIGHTED])
    terms = {"mean": mean}
    if lambdas:
        terms["cost"] = sum(lambdas[r] * (1.0 - a.scores[r]) for r in lambdas)
    if broken:
        terms["gate"] = -1.0 - plan.kappa * max(broken)
    return terms


def _value(terms: Mapping[str, float], lambdas: Mapping[str, float]) -> float:
    if "gate" in terms:
        return terms["gate"]
    return (terms["mean"] - terms.get("cost", 0.0)) / (1.0 + sum(lambdas.values()))


def tier_vector(plan: Plan, a: Answer, counted: Sequence[str]) -> tuple[int, ...]:
    """Grid steps per tier, the highest tier first: in a tier of musts the worst score, else the weighted mean; broken musts count apart."""
    vector: list[int] = []
    for tier in sorted({plan.terms[r].tier for r in counted}):
        rules = [r for r in counted if plan.terms[r].tier == tier]
        gates = [r for r in rules if plan.terms[r].mode is Mode.GATE]
        if gates:
            vector += [-sum(r in a.violated for r in gates), _steps(min(a.scores[r] for r in gates), plan.grid)]
        others = [(a.scores[r], plan.terms[r].weight) for r in rules if r not in gates]
        if others:
            vector.append(_steps(weighted_mean(others), plan.grid))
    return tuple(vector)


def _steps(score: float, grid: float) -> int:
    return round(score / grid + 1e-9)  # the nudge keeps 0.15 / 0.05 and its like on their own step


def _lexicographic(
    plan: Plan, group: Sequence[Answer], counted: Sequence[str], masks: Sequence[str | None]
) -> tuple[list[float | None], list[str | None]]:
    """Mid-ranks in [0, 1] of the tier vectors: the share of the other answers that this one beats, ties counting half."""
    vectors = [None if masked else tier_vector(plan, a, counted) for a, masked in zip(group, masks, strict=True)]
    known = [v for v in vectors if v is not None]
    if len(known) < 2:
        return [None] * len(group), [masked or "a group of one has no rank" for masked in masks]
    values = [None if v is None else (sum(o < v for o in known) + (sum(o == v for o in known) - 1) / 2) / (len(known) - 1) for v in vectors]
    return values, list(masks)


def costs(rewards: Sequence[Reward], rule: str) -> float | None:
    """Mean cost (1 - score) of ``rule`` over the unmasked answers to which it applies; None when there are none."""
    found = [1.0 - r.parts[rule] for r in rewards if r.value is not None and rule in r.parts]
    return sum(found) / len(found) if found else None


def ascend(
    lambdas: Mapping[str, float], mean_costs: Mapping[str, float | None], budgets: Mapping[str, float], rate: float, maximum: float
) -> dict[str, float]:
    """One step of projected gradient ascent: lambda <- clip(lambda + rate * (mean cost - budget), 0, maximum); no items, no step."""
    result = {}
    for rule, budget in budgets.items():
        old, cost = lambdas.get(rule, 0.0), mean_costs.get(rule)
        result[rule] = old if cost is None else min(max(old + rate * (cost - budget), 0.0), maximum)
    return result
