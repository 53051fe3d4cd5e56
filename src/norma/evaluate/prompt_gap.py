"""Does a prompt with rules steer? The same questions under several arms, each a model and what it is shown, compared pair by pair.

arm: none         the question as it is                     every rule's verdict counts
     rule         the question with ONE rule that applies   once a rule; only that rule's verdict counts
     applicable   with all that apply; all: with all
                      ─→ verdict rows ─→ rates of each arm, and paired differences from the base, overall and per rule
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from norma.evaluate.compliance import Judgements, adjust, compare, method_rates
from norma.generate import Sampling, generate
from norma.spec import Item, Message
from norma.spec.shown import Choice, Layout, chosen, laid_out
from norma.text.chat import prompt_ids

if TYPE_CHECKING:
    from norma.lm import LanguageModel
    from norma.spec import Spec


@dataclass(frozen=True)
class Arm:
    """Who answers, and which rules stand in the prompt."""

    model: LanguageModel
    rules: Choice | tuple[str, ...] = "none"


@dataclass(frozen=True)
class Ask:
    """One prompt of an arm. ``only``: the rule whose verdict counts; None: all of them."""

    item: Item
    messages: Sequence[Message]
    only: str | None = None


def asks(spec: Spec, items: Sequence[Item], arm: Arm, layout: Layout) -> list[Ask]:
    """All prompts of an arm."""
    if arm.rules != "rule":
        return [Ask(item, laid_out(spec, item, chosen(spec, item, arm.rules), layout)) for item in items]
    judged = spec.checkers("report")
    return [Ask(i, laid_out(spec, i, [rule], layout), rule) for i in items for rule in spec.resolve(i).active if rule in judged]


def shared(spec: Spec, items: Sequence[Item], arms: Mapping[str, Arm], layout: Layout, sampling: Sampling) -> list[Item]:
    """The questions that every arm can be asked: a prompt that had to be cut would not be the one that was meant."""
    out: set[str] = set()
    for arm in arms.values():
        room = arm.model.config.max_positions - (sampling.max_new_tokens if arm.model.config.kind == "decoder" else 0)
        out |= {a.item.id for a in asks(spec, items, arm, layout) if len(prompt_ids(arm.model.tokenizer, a.messages)) > room}
    return [item for item in items if item.id not in out]


def judged(spec: Spec, items: Sequence[Item], name: str, arm: Arm, layout: Layout, sampling: Sampling) -> list[dict[str, Any]]:
    """Verdict rows of an arm under the report checkers."""
    prompts = asks(spec, items, arm, layout)
    answers = generate(arm.model, [prompt_ids(arm.model.tokenizer, a.messages) for a in prompts], sampling)
    return [
        {**v.row(), "method": name, "cluster": ask.item.source, "language": ask.item.language}
        for ask, answer in zip(prompts, answers, strict=True)
        for v in spec.verdicts(ask.item, answer.text, "report")
        if ask.only is None or v.rule == ask.only
    ]


def gap(
    spec: Spec, items: Sequence[Item], arms: Mapping[str, Arm], base: str, layout: Layout, sampling: Sampling, *, seed: int = 0
) -> dict[str, Any]:
    """``{"methods": [rates of each arm], "comparisons": [paired differences from ``base``]}``, shaped as in report.json."""
    rows = [row for name, arm in arms.items() for row in judged(spec, items, name, arm, layout, sampling)]
    found = Judgements(rows)
    rules = found.rules("report")
    comparisons = [
        compare(found, base, name, rules, rule=rule, family="prompt" if rule is None else "prompt:rules", seed=seed)
        for name in arms
        if name != base
        for rule in (None, *rules)
    ]
    kept = [row for row in comparisons if row["n"]]
    adjust(kept)
    methods = [{"method": name, **method_rates(found.table(name, "report"), rules)} for name in arms]
    return {"questions": len(items), "base": base, "methods": methods, "comparisons": kept}
