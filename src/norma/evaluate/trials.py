"""What is asked besides the plain questions: rules on and off in the prompt, attacks, counterfactual groups.

    questions ─→ control: each rule alone in the prompt, and none; each combination, and it without one of its rules
    plain elicitation prompts ─→ attack: wrapped by templates; the spec's own prompts of split ``attack`` as they are
    plain elicitation prompts ─→ group: the same prompt by somebody else
                    ─→ Trial (set, arm, base, item, rules in the prompt) ─→ answers ─→ rows with set, arm and base

Verdict rows of a trial carry ``set``, ``arm`` and ``base`` (the plain item it is compared with); the main tables leave them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from norma.base.errors import NormaError, nearest
from norma.evaluate.attacks import ATTACKS, OWN, attack_items
from norma.evaluate.groups import GROUPS, group_items
from norma.spec import Item

if TYPE_CHECKING:
    from norma.spec import Spec

MAIN, ELICIT, CONTROL, ATTACK, GROUP = "questions", "elicit", "control", "attack", "group"
NO_RULES = "-"  # the arm whose prompt shows no rule


@dataclass(frozen=True)
class Probe:
    """Which trials are made. ``control``: how many questions see rules switched on and off; ``own``: the spec's own attack prompts."""

    control: int = 0
    combinations: tuple[tuple[str, ...], ...] = ()
    attacks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    own: bool = True

    def __post_init__(self) -> None:
        for names, known, what in ((self.attacks, ATTACKS, "attack"), (self.groups, GROUPS, "kind of group")):
            for name in names:
                if name not in known:
                    raise NormaError(f"unknown {what} '{name}'", mend=nearest(name, known))


@dataclass(frozen=True)
class Trial:
    """One further prompt. ``rules``: those shown in the prompt; None: as the method under test shows them."""

    set: str
    arm: str
    base: str
    item: Item
    rules: tuple[str, ...] | None = None

    @property
    def tags(self) -> dict[str, str]:
        """What a response or verdict row of this trial carries besides the usual."""
        return {"set": self.set, "arm": self.arm, "base": self.base}


def arm_name(rules: Sequence[str]) -> str:
    """The name of a control arm: the rules in its prompt, whatever their order."""
    return "+".join(sorted(rules)) or NO_RULES


def contrasts(rules: Sequence[str], combinations: Sequence[Sequence[str]]) -> list[tuple[str, tuple[str, ...]]]:
    """(rule, the rules in the prompt with it on); off is the same prompt without it. Every rule alone, and every rule of a combination."""
    return [(rule, (rule,)) for rule in rules] + [(rule, tuple(combination)) for combination in combinations for rule in combination]


def trials(spec: Spec, questions: Sequence[Item], elicit: Sequence[Item], probe: Probe) -> list[Trial]:
    """All trials of a probe, ids unique. ``questions`` are for control, ``elicit`` (plain prompts) for attacks and groups."""
    return [
        *control_trials(spec, questions[: probe.control], probe.combinations),
        *(Trial(ATTACK, OWN, "", item) for item in (spec.elicit("attack") if probe.own else ())),
        *(Trial(ATTACK, kind, base.id, item) for kind, item, base in attack_items(elicit, probe.attacks)),
        *(Trial(GROUP, f"{kind}={group}", base.id, item) for kind, group, item, base in group_items(elicit, probe.groups)),
    ]


def control_trials(spec: Spec, questions: Sequence[Item], combinations: Sequence[Sequence[str]]) -> list[Trial]:
    """For each question the arms that some active rule needs: with it, and without. Equal arms are asked once."""
    for combination in combinations:
        for rule in combination:
            spec.rule(rule)
        if len(set(combination)) < 2:
            raise NormaError("a combination names two rules or more", mend="Single rules are switched on and off anyway")
    made = []
    for item in questions:
        active = set(spec.resolve(item).active)
        wanted = [shown for rule, shown in contrasts([r.id for r in spec.rules], combinations) if rule in active and active >= set(shown)]
        arms = {arm_name(rules): rules for shown in wanted for rules in _with_and_without(shown)}
        for name, rules in arms.items():
            made.append(Trial(CONTROL, name, item.id, replace(item, id=f"{item.id}@rules:{name}", cluster=item.source), rules))
    return made


def _with_and_without(shown: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [shown, *(tuple(r for r in shown if r != rule) for rule in shown)]


def plain_prompts(spec: Spec) -> list[Item]:
    """The spec's elicitation prompts that are no attacks."""
    attacks = {item.id for item in spec.elicit("attack")}
    return [item for item in spec.elicit() if item.id not in attacks]


def is_main(row: Any) -> bool:
    """Whether a response or verdict row belongs to the main tables."""
    return bool(row.get("set", MAIN) == MAIN)
