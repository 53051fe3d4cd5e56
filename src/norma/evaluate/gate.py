"""The compliance gate: does this model keep these rules well enough?

    spec.elicit() or a prompts file ─→ items ─┬→ render (rules in the prompt, or not) ─→ Answerer, journaled ─→ answers
    attacks, rules on and off, groups ────────┘
    answers ─→ verdicts, roles report and heldout ─→ build_report ─→ report.html, report.json, junit.xml
                                                         └─→ each target: passed, failed or undecided ─→ exit code

Exit codes: 0 every target is reached; 1 a rule is below its target; 2 nothing failed, but something is undecided. Undecided is a
target that no answer could test, one that an interval straddles (``gate="lower"``), and one that would be missed if the answers
without a verdict turned out to be violations: an error is never a pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from norma.base.errors import NormaError
from norma.base.files import write_json, write_jsonl, write_text
from norma.evaluate.audit import gold_rows
from norma.evaluate.drift import benign_pairs
from norma.evaluate.estimate import Estimate, estimate
from norma.evaluate.junit import junit_xml, outcome
from norma.evaluate.prompts import wording_for
from norma.evaluate.report import Extras, build_report, render_html
from norma.evaluate.sampling import Answer, Answerer, Journal, journaled
from norma.evaluate.trials import Probe, Trial, trials
from norma.spec import Item, Status

if TYPE_CHECKING:
    from norma.spec import Spec

Render = Literal["none", "applicable", "all"]
Gate = Literal["point", "lower"]
ROLES: tuple[Literal["report"], Literal["heldout"]] = ("report", "heldout")
PASSED, FAILED, UNDECIDED = "passed", "failed", "undecided"


@dataclass(frozen=True)
class TargetOutcome:
    """What became of one rule's target; ``why`` is in words where it is undecided."""

    rule: str
    target: float
    found: str
    why: str = ""


@dataclass(frozen=True)
class GateResult:
    """The report, the targets' outcomes, and how many requests failed."""

    report: dict[str, Any]
    outcomes: tuple[TargetOutcome, ...]
    answers: int
    failures: tuple[Answer, ...]
    folder: Path

    @property
    def exit_code(self) -> int:
        found = {o.found for o in self.outcomes}
        return 1 if FAILED in found else 2 if UNDECIDED in found else 0


def default_folder(spec: Spec, name: str) -> Path:
    """Where a check writes unless told otherwise: ``norma-check/SPEC-MODEL`` in the working folder."""
    return Path("norma-check") / "-".join(re.sub(r"[^\w.]+", "_", part).strip("._") or "model" for part in (spec.id, name))


@dataclass(frozen=True)
class Question:
    """One prompt of a check: what is judged, what is sent (same id), and what trial it belongs to, if any."""

    item: Item
    sent: Item
    tags: Mapping[str, str]


def questions(spec: Spec, items: Sequence[Item], render: Render = "none", probe: Probe | None = None) -> list[Question]:
    """Everything that a check asks, in order. Trials with rules of their own in the prompt show those, all others what ``render`` says."""
    if not items:
        raise NormaError(
            "this spec has no elicitation prompts", where=spec.source or spec.id, mend="Add 'elicit:' to its rules, or give --prompts FILE"
        )
    asked = [Question(item, _rendered(spec, item, render), {}) for item in items]
    made: list[Trial] = trials(spec, items, items, probe) if probe else []
    taken = {item.id for item in items}
    return asked + [
        Question(t.item, _rendered(spec, t.item, render if t.rules is None else t.rules), t.tags) for t in made if t.item.id not in taken
    ]


def check_model(
    spec: Spec,
    items: Sequence[Item],
    answerer: Answerer,
    folder: Path,
    *,
    render: Render = "none",
    gate: Gate = "point",
    fail_under: float | None = None,
    probe: Probe | None = None,
    audit: Sequence[Mapping[str, Any]] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> GateResult:
    """Ask, judge, report. ``fail_under`` is the target of every rule instead of the spec's own. Files go to ``folder``.

    ``probe``: further trials, which the gate does not count. ``audit``: labels; fair marks on these answers correct the rates.
    """
    asked = questions(spec, items, render, probe)
    if fail_under is not None and not 0 <= fail_under <= 1:
        raise NormaError(f"--fail-under is a share between 0 and 1, not {fail_under:g}")
    with Journal(folder / "answers.jsonl") as journal:
        answers = journaled([q.sent for q in asked], answerer, journal, progress)
    pairs = list(zip(asked, answers, strict=True))
    verdicts = [row | dict(q.tags) for q, answer in pairs for row in verdict_rows(spec, q.item, answer, answerer.name)]
    responses = [response_row(q.item, a, answerer.name) | dict(q.tags) for q, a in pairs if a.text is not None]
    if audit:
        main = [r for r in responses if "arm" not in r]
        verdicts += gold_rows(audit, main, {rule.id: rule.hash for rule in spec.rules})
    failures = tuple(a for a in answers if a.error is not None)
    write_jsonl(folder / "verdicts.jsonl", verdicts)
    write_jsonl(folder / "responses.jsonl", responses)
    extras: Extras = {
        "gate": gate,
        "under_test": [answerer.name],
        "combinations": [list(c) for c in probe.combinations] if probe else [],
        "benign": benign_pairs(spec) if hasattr(spec.rules[0], "elicit") else {},
        "run": {
            "name": f"norma check {spec.id}: {answerer.name}",
            "prompts": len(items),
            "render": render,
            "failed requests": len(failures),
        },
    }
    report = build_report(responses, verdicts, extras, _with_target(spec, fail_under))
    write_json(folder / "report.json", report)
    write_text(folder / "report.html", render_html(report))
    write_text(folder / "junit.xml", junit_xml(report))
    return GateResult(report, tuple(target_outcomes(report, gate)), len(asked), failures, folder)


def estimate_check(
    asked: Sequence[Question], answerer: Answerer, folder: Path, *, max_new_tokens: int, concurrency: int, price: tuple[float, float] | None
) -> Estimate:
    """What the check will take; the answers that it times are kept in the check's journal."""
    with Journal(folder / "answers.jsonl") as journal:
        sent = [q.sent for q in asked]
        return estimate(sent, answerer, journal, max_new_tokens=max_new_tokens, concurrency=concurrency, price=price)


def target_outcomes(report: dict[str, Any], gate: str) -> list[TargetOutcome]:
    """One outcome per rule with a target, for the one method of the report."""
    rows = {row["rule"]: row for row in report["methods"][0]["rules"]}
    found = []
    for card in report["spec"]["rules"]:
        rule, target = card["rule"], card["target"]
        if target is None:
            continue
        row = rows.get(rule)
        if row is None or row["applicable"] == 0:
            found.append(TargetOutcome(rule, target, UNDECIDED, "no prompt tests this rule"))
        elif row["rate"] is None:
            found.append(TargetOutcome(rule, target, UNDECIDED, f"none of {row['applicable']} answers has a verdict"))
        else:
            found.append(_judged(rule, target, row, gate))
    return found


def _judged(rule: str, target: float, row: dict[str, Any], gate: str) -> TargetOutcome:
    result = outcome(row, target, gate)
    if result == PASSED and row["bounds"] and row["bounds"][0] < target:
        missing = row["unsure"] + row["error"]
        return TargetOutcome(rule, target, UNDECIDED, f"{missing} answers without a verdict could bring it to {row['bounds'][0]:.1%}")
    why = f"the interval {row['low']:.1%} to {row['high']:.1%} holds the target: too few prompts" if result == UNDECIDED else ""
    return TargetOutcome(rule, target, result, why)


def _rendered(spec: Spec, item: Item, render: Render | Sequence[str]) -> Item:
    """The item with the messages that are sent; what is judged stays the item itself."""
    if render == "none":
        return item
    messages = spec.render(list(item.messages), item, language=wording_for(spec.languages, item.language), rules=render)
    return replace(item, messages=tuple(messages))


def verdict_rows(spec: Spec, item: Item, answer: Answer, method: str) -> list[dict[str, Any]]:
    rows = []
    for role in ROLES:
        for verdict in spec.verdicts(item, answer.text or "", role):
            if answer.text is None and verdict.status is not Status.NOT_APPLICABLE:
                # Which rules apply depends on the input alone and is known; what the answer would have been is not.
                note = f"no answer: {answer.error}"
                verdict = replace(verdict, status=Status.ERROR, score=None, evidence=(), note=note, margin=None)
            rows.append({**verdict.row(), "method": method, "cluster": item.source, "language": item.language})
    return rows


def response_row(item: Item, answer: Answer, method: str) -> dict[str, Any]:
    return {
        "method": method,
        "item": item.id,
        "cluster": item.source,
        "language": item.language,
        "messages": list(item.messages),
        "response": answer.text,
        "reference": item.reference,
        "tokens": answer.tokens,
    }


def _with_target(spec: Spec, target: float | None) -> Any:
    """The spec as the report sees it, with every rule's target set to ``target``."""
    if target is None:
        return spec
    names = ("id", "hash", "statement", "level", "must")
    goal = SimpleNamespace(min_rate=target)
    rules = tuple(SimpleNamespace(target=goal, **{name: getattr(rule, name) for name in names}) for rule in spec.rules)
    return SimpleNamespace(id=spec.id, version=spec.version, digest=spec.digest, languages=spec.languages, rules=rules)
