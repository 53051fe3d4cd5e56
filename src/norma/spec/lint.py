"""What is wrong with a spec that loads: findings, not exceptions, the worst first.

Spec ─→ [static lint] + [its own examples through its own checkers, when asked] ─→ findings with level, rule, place, text, mend
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from norma.spec import languages, registry
from norma.spec.rule import Rule
from norma.spec.schema import ExampleEntry, Mode
from norma.spec.spec import Spec
from norma.spec.types import Item, Message, Standing, Status

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class LintFinding:
    """One finding; ``where`` is file:line:column."""

    severity: Severity
    code: str
    rule: str  # "" for the spec as a whole
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.severity}: {self.text} [{self.code}]"

    def row(self) -> dict[str, Any]:
        """The finding as one JSON object."""
        return {"severity": self.severity, "code": self.code, "rule": self.rule, "where": self.where, "text": self.text}


def lint(spec: Spec, run_checkers: bool = False) -> list[LintFinding]:
    """All findings, errors first, then in the order of the file. ``run_checkers``: also send the examples through the checkers."""
    found = [f for i, rule in enumerate(spec.rules) for f in _rule(spec, rule, i)]
    found += list(_compose(spec)) + list(_leaks(spec))
    if run_checkers:
        found += [f for i, rule in enumerate(spec.rules) for f in _examples(spec, rule, i)]
    return sorted(found, key=lambda f: f.severity != "error")


def _rule(spec: Spec, rule: Rule, i: int) -> Iterator[LintFinding]:
    def finding(severity: Severity, code: str, text: str, *at: str | int) -> LintFinding:
        return LintFinding(severity, code, rule.id, spec.document.where(("rules", i, *at)), f"rule '{rule.id}': {text}")

    if rule.must and rule.reward.mode not in (None, Mode.GATE):
        yield finding("error", "gate-disagrees", f"must is true but reward.mode is {rule.reward.mode}; must wins", "reward", "mode")
    if not rule.must and rule.reward.mode is Mode.GATE:
        yield finding("error", "gate-disagrees", "reward.mode is gate but must is false; must wins", "reward", "mode")
    if rule.must and rule.constrained:
        yield finding("error", "gate-disagrees", "a must rule cannot be a constraint; must wins", "must")
    if rule.constrained and rule.reward.mode not in (None, Mode.CONSTRAINT):
        yield finding(
            "error", "constraint-disagrees", f"compose.constraints names it but reward.mode is {rule.reward.mode}", "reward", "mode"
        )
    if rule.reward.mode is Mode.CONSTRAINT and not rule.constrained:
        yield finding(
            "error", "constraint-disagrees", "reward.mode is constraint but compose.constraints gives no budget", "reward", "mode"
        )
    levels = spec.levels
    for j, other in enumerate(rule.overrides):
        if levels.index(spec.rule(other).level) != levels.index(rule.level):
            yield finding("warning", "override-idle", f"overrides '{other}' of another level: the level decides", "overrides", j)
    for key, code in (("checkers", "no-checker"), ("elicit", "no-elicitor")):
        if not getattr(rule, key):
            yield finding("warning", code, f"has no '{key}'")
    if not any(e.bad for e in rule.examples):
        yield finding("warning", "no-bad-example", "has no bad example")
    if rule.elicit and not any(e.benign_pair_of for e in rule.elicit):
        yield finding("warning", "no-benign-pair", "no prompt has a benign pair", "elicit")
    for language in spec.languages:
        if rule.examples and not any(languages.covers(e.lang, language) for e in rule.examples):
            yield finding("warning", "example-language", f"has no example in {language}", "examples")
    yield from (finding("error", code, text, "checkers", j) for code, text, j in _checkers(rule))


def _checkers(rule: Rule) -> Iterator[tuple[str, str, int]]:
    training = {(c.kind, c.use): c.id for c in rule.checkers if {"train"} & set(c.roles)}
    for j, c in enumerate(rule.checkers):
        if "heldout" in c.roles and (c.kind, c.use) in training:
            yield "heldout-trained", f"the held-out checker '{c.id}' ({c.kind} {c.use}) is also a train checker", j
        for low, value in c.params.items():
            high = low.replace("min", "max", 1)
            bounds = (value, c.params.get(high))
            if low.startswith("min") and all(isinstance(b, (int, float)) for b in bounds) and bounds[0] > bounds[1]:
                yield "min-above-max", f"checker '{c.id}': {low} {bounds[0]} is greater than {high} {bounds[1]}", j


def _compose(spec: Spec) -> Iterator[LintFinding]:
    gates = spec.composition.gates
    musts = {rule.id for rule in spec.rules if rule.must}
    if gates is not None and set(gates) != musts:
        odd = ", ".join(sorted(set(gates) ^ musts))
        where = spec.document.where(("compose", "gates"))
        yield LintFinding("error", "gate-disagrees", "", where, f"compose.gates and the must rules differ: {odd}; must wins")


def _leaks(spec: Spec) -> Iterator[LintFinding]:
    """The same example text in two splits: what is measured has been seen."""
    seen: dict[tuple[str, str], tuple[str, str]] = {}
    for i, rule in enumerate(spec.rules):
        for j, example in enumerate(rule.examples):
            prompt = _key(" ".join(m.content for m in example.messages))
            for text in (*example.good, *example.bad):
                first = seen.setdefault((prompt, _key(text)), (example.split, rule.id))
                if first[0] != example.split:
                    where = spec.document.where(("rules", i, "examples", j))
                    text = f"rule '{rule.id}': an example of split {example.split} also stands in split {first[0]} of '{first[1]}'"
                    yield LintFinding("warning", "split-leak", rule.id, where, text)
                    break


def _key(text: str) -> str:
    """Letters and digits only, case folded: near-duplicates fall together."""
    return "".join(c for c in text.casefold() if c.isalnum())


def _examples(spec: Spec, rule: Rule, i: int) -> Iterator[LintFinding]:
    """A good example that fails a checker of ANY active rule; a bad example that passes all train checkers of its own rule."""
    for j, example in enumerate(rule.examples):
        item = _item(rule, example, j)
        standings = spec.resolve(item).statuses
        where = spec.document.where(("rules", i, "examples", j))
        if standings[rule.id].status is not Standing.ACTIVE:
            text = f"rule '{rule.id}': not active for its own example ({standings[rule.id].reason})"
            yield LintFinding("warning", "example-inactive", rule.id, where, text)
            continue
        for k, answer in enumerate(example.good):
            place = spec.document.where(("rules", i, "examples", j, "good", k))
            for role in ("train", "report", "heldout"):
                for v in spec.verdicts(item, answer, role):
                    if v.status in (Status.VIOLATION, Status.ERROR):
                        severity: Severity = "error" if v.rule == rule.id or v.status is Status.ERROR else "warning"
                        text = f"rule '{rule.id}': the good example {k + 1} gets {v.status.value} from {v.rule}/{v.checker}" + _note(v.note)
                        yield LintFinding(severity, "good-fails", rule.id, place, text)
        train = spec.checkers("train").get(rule.id, [])
        for k, answer in enumerate(example.bad):
            place = spec.document.where(("rules", i, "examples", j, "bad", k))
            findings = [registry.run(checker, item, answer) for checker in train]
            if findings and not any(f.status is Status.VIOLATION for f in findings):
                text = f"rule '{rule.id}': the bad example {k + 1} passes all train checkers"
                yield LintFinding("error", "bad-passes", rule.id, place, text)


def _item(rule: Rule, example: ExampleEntry, j: int) -> Item:
    messages = tuple(Message(role=m.role, content=m.content) for m in example.messages)
    return Item(f"{rule.id}/example-{j + 1}", messages, example.lang, dict(example.facts))


def _note(note: str) -> str:
    return f" ({note})" if note else ""
