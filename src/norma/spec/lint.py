"""What is wrong with a spec that loads: findings, not exceptions, the worst first.

Spec ─→ [static lint] + [its own examples through its own checkers, when asked] ─→ findings with level, rule, place, text, mend
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from norma.spec import languages, registry
from norma.spec.leaks import leaks
from norma.spec.rule import Rule
from norma.spec.schema import ExampleEntry, Mode
from norma.spec.spec import Spec
from norma.spec.types import Checker, Item, Message, Standing, Status

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


Selftest = Callable[[Checker, Sequence[tuple[Item, str]]], list[str]]  # norma.check.metamorphic.selftest, which lives higher up


def lint(
    spec: Spec, run_checkers: bool = False, kinds: Collection[str] | None = None, selftest: Selftest | None = None
) -> list[LintFinding]:
    """All findings, errors first, then in the order of the file. ``run_checkers``: also send the examples through the checkers.

    ``kinds``: only through checkers of these kinds (None: all); ``selftest``: what is wrong with a checker itself, given good answers.
    """
    found = [f for i, rule in enumerate(spec.rules) for f in _rule(spec, rule, i)]
    found += list(_compose(spec))
    for leak in leaks(spec):
        found.append(LintFinding("warning", "split-leak", leak.rule, spec.document.where(leak.path), leak.text))
    if run_checkers:
        found += [f for i, rule in enumerate(spec.rules) for f in _examples(spec, rule, i, kinds)]
    if run_checkers and selftest is not None:
        found += [f for i, rule in enumerate(spec.rules) for f in _selftests(spec, rule, i, kinds, selftest)]
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
    if not rule.checkers:
        yield finding("warning", "no-checker", "has no 'checkers'")
    if not rule.elicit and not any(spec.resolve(item).statuses[rule.id].status is Standing.ACTIVE for item in spec.elicit()):
        yield finding("warning", "no-elicitor", "has no 'elicit', and no other rule's prompt makes it active")
    if not any(e.good for e in rule.examples):
        yield finding("warning", "no-good-example", "has no good example")
    if not any(e.bad for e in rule.examples):
        yield finding("warning", "no-bad-example", "has no bad example")
    if rule.elicit and not any(e.benign_pair_of for e in rule.elicit):
        yield finding("warning", "no-benign-pair", "no prompt has a benign pair", "elicit")
    for language in spec.languages:
        if rule.examples and not any(languages.covers(e.lang, language) for e in rule.examples):
            yield finding("warning", "example-language", f"has no example in {language}", "examples")
        state = rule.translation(language)
        if state == "stale":
            yield finding(
                "warning", "stale-translation", f"the source wording changed after '{language}' was translated; translate it again, "
                f'then write of: "{rule.hash[:12]}"', "translations", language,
            )  # fmt: skip
        if state == "unrecorded" and any(language in other.translations for other in spec.rules):
            text = f"nothing tells which wording '{language}' was translated from"
            text += f'; if it is the one of today, write translations: {{{language}: {{of: "{rule.hash[:12]}"}}}}'
            yield finding("warning", "unrecorded-translation", text, "statement", language)
        for j, e in enumerate(rule.elicit):
            if not any(languages.covers(tag, language) for tag in e.prompt):
                yield finding("warning", "prompt-language", f"prompt '{e.id}' is not there in {language}", "elicit", j, "prompt")
        if rule.correct and rule.correct.instruction and not languages.best(language, rule.correct.instruction):
            yield finding("warning", "instruction-language", f"correct.instruction is not there in {language}", "correct", "instruction")
    for j, example in enumerate(rule.examples):
        if not any(languages.covers(example.lang, language) for language in spec.languages):
            yield finding("warning", "example-language", f"an example is in {example.lang}, which the spec does not declare", "examples", j)
    for j, signed in enumerate(rule.editorial):
        if rule.hash.startswith(signed.was):
            yield finding("warning", "editorial-idle", "the signed change is from the wording as it is now", "editorial", j)
    yield from (finding("error", code, text, "checkers", j) for code, text, j in _checkers(rule))


def _checkers(rule: Rule) -> Iterator[tuple[str, str, int]]:
    training = {leaf for c in rule.checkers if "train" in c.roles for leaf in _leaves(c.kind, c.use, c.params)}
    for j, c in enumerate(rule.checkers):
        for kind, use in sorted(_leaves(c.kind, c.use, c.params) & training) if "heldout" in c.roles else ():
            yield "heldout-trained", f"the held-out checker '{c.id}' ({kind} {use}) is also a train checker", j
        for low, least, high, most in _bounds(c.params):
            yield "min-above-max", f"checker '{c.id}': {low} {least} is greater than {high} {most}", j


def _leaves(kind: str, use: str, params: Any) -> set[tuple[str, str]]:
    """(kind, use) of a checker and of those that its parameters name (composites)."""
    found = {(kind, use)}
    for part in params.values() if isinstance(params, dict) else params if isinstance(params, list) else ():
        if isinstance(part, dict) and isinstance(part.get("use"), str):
            found |= _leaves(str(part.get("kind", kind)), part["use"], part.get("params", {}))
        elif isinstance(part, (dict, list)):
            found |= _leaves(kind, use, part)
    return found


def _bounds(params: Any) -> Iterator[tuple[str, Any, str, Any]]:
    """Pairs of bounds that nothing can satisfy, at any depth: min_x above max_x, least above most, low above high."""
    if isinstance(params, dict):
        for low, value in params.items():
            for small, large in (("min", "max"), ("least", "most"), ("low", "high")):
                most = params.get(low.replace(small, large, 1)) if small in low.split("_") or low.startswith(small) else None
                if _number(value) and _number(most) and value > most:
                    yield low, value, low.replace(small, large, 1), most
    for part in params.values() if isinstance(params, dict) else params if isinstance(params, list) else ():
        yield from _bounds(part)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _compose(spec: Spec) -> Iterator[LintFinding]:
    gates = spec.composition.gates
    musts = {rule.id for rule in spec.rules if rule.must}
    if gates is not None and set(gates) != musts:
        odd = ", ".join(sorted(set(gates) ^ musts))
        where = spec.document.where(("compose", "gates"))
        yield LintFinding("error", "gate-disagrees", "", where, f"compose.gates and the must rules differ: {odd}; must wins")


def _examples(spec: Spec, rule: Rule, i: int, kinds: Collection[str] | None) -> Iterator[LintFinding]:
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
            for other in spec.rules:
                for entry, checker in spec.bound(other.id) if standings[other.id].status is Standing.ACTIVE else ():
                    if kinds is not None and entry.kind not in kinds:
                        continue
                    found = registry.run(checker, item, answer)
                    if found.status in (Status.VIOLATION, Status.ERROR):
                        severity: Severity = "error" if other.id == rule.id or found.status is Status.ERROR else "warning"
                        said = f"{found.status.value} from {other.id}/{entry.id}" + _note(found.note)
                        yield LintFinding(severity, "good-fails", rule.id, place, f"rule '{rule.id}': the good example {k + 1} gets {said}")
        bound = [(entry, checker) for entry, checker in spec.bound(rule.id) if "train" in entry.roles]
        train = [checker for entry, checker in bound if kinds is None or entry.kind in kinds]
        if len(train) < len(bound):
            continue  # a checker that was not asked may be the one that sees it
        for k, answer in enumerate(example.bad):
            place = spec.document.where(("rules", i, "examples", j, "bad", k))
            findings = [registry.run(checker, item, answer) for checker in train]
            if findings and not any(f.status is Status.VIOLATION for f in findings):
                text = f"rule '{rule.id}': the bad example {k + 1} passes all train checkers"
                yield LintFinding("error", "bad-passes", rule.id, place, text)


def _selftests(spec: Spec, rule: Rule, i: int, kinds: Collection[str] | None, selftest: Selftest) -> Iterator[LintFinding]:
    """What the self-test finds wrong with each checker of a rule, given the rule's good examples."""
    good = [(_item(rule, e, j), answer) for j, e in enumerate(rule.examples) for answer in e.good]
    active = [(item, answer) for item, answer in good if spec.resolve(item).statuses[rule.id].status is Standing.ACTIVE]
    places = {entry.id: j for j, entry in enumerate(rule.checkers)}
    for entry, checker in spec.bound(rule.id):
        if kinds is None or entry.kind in kinds:
            known = [(item, y) for item, y in active if registry.run(checker, item, y).status is Status.COMPLIANT]
            for fault in selftest(checker, known):
                where = spec.document.where(("rules", i, "checkers", places[entry.id]))
                yield LintFinding("error", "selftest", rule.id, where, f"rule '{rule.id}': self-test of checker '{entry.id}': {fault}")


def _item(rule: Rule, example: ExampleEntry, j: int) -> Item:
    messages = tuple(Message(role=m.role, content=m.content) for m in example.messages)
    return Item(f"{rule.id}/example-{j + 1}", messages, example.lang, dict(example.facts))


def _note(note: str) -> str:
    return f" ({note})" if note else ""
