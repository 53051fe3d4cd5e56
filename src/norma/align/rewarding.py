"""R(x, y) of what the policy wrote: the spec's rules, a reward model, or both; and what the held-out checkers say of the same answers.

    answers to one question ─┬─ verdicts of role train ──composed by the spec, with the multipliers──┐
                             ├─ reward model, centred ───────────────────────────────── x weight ────┼─→ R, or None: masked
                             └─ cut off, or nearly ───────────────────────────────────── penalties ──┘
                             └─ verdicts of role heldout ─→ reward_held_out: shown, never trained

What is logged as ``reward`` is what is optimised, to the last penalty; the leash is not in it (``kl`` has a curve of its own).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor

from norma.align.marks import Marked, mark
from norma.align.policy_options import PolicyOptions
from norma.generate import Completion
from norma.objectives.shaping import overlong_penalty
from norma.spec import Item, Message, Reward, Spec, Status, Verdict
from norma.spec.compose import ascend, costs


class Scorer(Protocol):
    """A reward model (``norma.align.reward_model``): scores of whole answers, (N, len(names))."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def scores(self, prompts: Sequence[Sequence[Message]], answers: Sequence[str]) -> Tensor: ...


@dataclass(frozen=True)
class Judged:
    """The answers to one question and their rewards; None where nobody could say (masked, never zero)."""

    item: Item
    answers: list[Marked]
    rewards: list[float | None]
    parts: list[Reward]  # what the spec composed, before penalties
    scores: list[dict[str, float]]  # of the reward model, by name
    written: list[Completion]


class NormReward:
    """Judges groups of answers.

    Args:
        spec: its rules make the reward, unless None.
        scorer, weight, shift: a reward model, added as weight x (mean of its scores - shift). ``shift`` is its mean over the
            reference's own answers: a reward is known up to a constant, and PPO's values begin at 0.
    """

    def __init__(
        self, spec: Spec | None, options: PolicyOptions, *, scorer: Scorer | None = None, weight: float = 1.0, shift: float = 0.0
    ) -> None:
        self.spec, self.options, self.scorer, self.weight, self.shift = spec, options, scorer, weight, shift
        self.budgets = {} if spec is None else {rule: c.budget for rule, c in spec.composition.constraints.items()}
        self.held_out_rules = [] if spec is None else sorted(spec.checkers("heldout"))

    def judge(self, groups: Sequence[tuple[Item, Sequence[Completion]]], multipliers: Mapping[str, float]) -> list[Judged]:
        """Rewards of several groups, the reward model asked once for all of them."""
        flat = [(item, completion) for item, completions in groups for completion in completions]
        scored: list[dict[str, float]] = [{} for _ in flat]
        if self.scorer is not None:
            values = self.scorer.scores([item.messages for item, _ in flat], [c.text for _, c in flat])
            scored = [dict(zip(self.scorer.names, row, strict=True)) for row in values.tolist()]
        made, at = [], 0
        for item, completions in groups:
            made.append(self._group(item, completions, scored[at : at + len(completions)], multipliers))
            at += len(completions)
        return made

    def _group(
        self, item: Item, completions: Sequence[Completion], scores: list[dict[str, float]], multipliers: Mapping[str, float]
    ) -> Judged:
        if self.spec is None:
            answers = [Marked(item, c.text, c.ids, [], c.finish_reason == "stop") for c in completions]
            parts = [Reward(0.0, {}, ()) for _ in completions]
        else:
            answers = [mark(self.spec, item, c) for c in completions]
            lambdas = {"lambdas": multipliers} if self.budgets else {}
            parts = self.spec.rewards([item] * len(answers), [a.verdicts for a in answers], **lambdas)
        rewards = []
        for part, score, answer in zip(parts, scores, answers, strict=True):
            ruled = 0.0 if score and not part.active else part.value  # where no rule speaks, the reward model may
            rewards.append(None if ruled is None else ruled + self._scored(score) + self._penalty(answer))
        return Judged(item, answers, rewards, parts, scores, list(completions))

    def _scored(self, scores: Mapping[str, float]) -> float:
        return self.weight * (sum(scores.values()) / len(scores) - self.shift) if scores else 0.0

    def _penalty(self, answer: Marked) -> float:
        options = self.options
        late = overlong_penalty(len(answer.ids), options.max_new_tokens, options.overlong)
        return late + (0.0 if answer.finished else options.unfinished)

    def ascended(self, multipliers: Mapping[str, float], judged: Sequence[Judged]) -> dict[str, float]:
        """The multipliers after a rollout: up where a constraint costs more than its budget (Safe RLHF, 2310.12773)."""
        parts = [part for group in judged for part in group.parts]
        mean = {rule: costs(parts, rule) for rule in self.budgets}
        return ascend(multipliers, mean, self.budgets, self.options.multiplier_rate, self.options.multiplier_most)

    def held_out(self, judged: Sequence[Judged]) -> dict[str, float]:
        """What the held-out checkers say of the same answers, composed as the reward is, and by rule. Empty when there are none."""
        if self.spec is None or not self.held_out_rules:
            return {}
        values: list[float] = []
        marks: dict[str, list[bool]] = {}
        for group in judged:
            verdicts = [self.spec.verdicts(group.item, a.text, "heldout") for a in group.answers]
            count_marks(marks, [v for answer in verdicts for v in answer])
            shown = [[replace(v, role="report") for v in answer] for answer in verdicts]  # composed for the curve alone
            values += [r.value for r in self.spec.rewards([group.item] * len(shown), shown) if r.value is not None]
        numbers = {f"held_out/{rule}": sum(m) / len(m) for rule, m in sorted(marks.items())}
        return ({"reward_held_out": sum(values) / len(values)} if values else {}) | numbers


def reward_numbers(judged: Sequence[Judged]) -> dict[str, float]:
    """What is logged of a rollout: the reward that is optimised, in sum and per rule; answers that are masked or cut off."""
    answers = [a for group in judged for a in group.answers]
    values = [r for group in judged for r in group.rewards if r is not None]
    marks: dict[str, list[bool]] = {}
    for answer in answers:
        count_marks(marks, answer.verdicts)
    scores: dict[str, list[float]] = {}
    for group in judged:
        for row in group.scores:
            for name, value in row.items():
                scores.setdefault(name, []).append(value)
    count = max(1, len(answers))
    numbers: dict[str, Any] = {"reward": sum(values) / max(1, len(values))}
    numbers |= {f"rule/{rule}": sum(m) / len(m) for rule, m in sorted(marks.items())}
    numbers |= {f"model/{name}": sum(v) / len(v) for name, v in sorted(scores.items())}
    numbers["answer_tokens"] = sum(len(a.ids) for a in answers) / count
    numbers["unfinished"] = sum(not a.finished for a in answers) / count
    numbers["masked"] = 1 - len(values) / count
    return numbers


def count_marks(marks: dict[str, list[bool]], verdicts: Sequence[Verdict]) -> None:
    """Add decided verdicts to ``marks``: rule -> kept or not."""
    for verdict in verdicts:
        if verdict.status in (Status.COMPLIANT, Status.VIOLATION):
            marks.setdefault(verdict.rule, []).append(verdict.status is Status.COMPLIANT)
