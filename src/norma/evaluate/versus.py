"""``norma gate``: may NEW take the place of OLD? The same prompts, put to both, compared pair by pair.

    answers of OLD and NEW to the same prompts ─→ verdicts ─→ report of two methods ─→ per rule: better, held, worse, undecided

held: the interval excludes a loss of ``margin`` or more (non-inferior). worse: the interval lies below zero and Holm agrees, or NEW
misses a target that OLD reached. undecided: neither is shown, mostly because there were too few prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.base.errors import NormaError
from norma.base.files import write_json, write_jsonl, write_text
from norma.evaluate.gate import Question, Render, questions, response_row, verdict_rows
from norma.evaluate.junit import junit_xml, outcome
from norma.evaluate.report import Extras, build_report, render_html
from norma.evaluate.sampling import Answerer, Journal, journaled

if TYPE_CHECKING:
    from norma.spec import Item, Spec

OLD, NEW = "old", "new"
BETTER, HELD, WORSE, UNDECIDED = "better", "held", "worse", "undecided"


@dataclass(frozen=True)
class Finding:
    """What became of one rule; ``why`` in words."""

    rule: str
    found: str
    why: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Versus:
    """The report of both, and a finding per rule."""

    report: dict[str, Any]
    findings: tuple[Finding, ...]
    folder: Path

    @property
    def exit_code(self) -> int:
        """0: nothing got worse and everything is shown; 1: a rule got worse; 2: undecided."""
        found = {f.found for f in self.findings}
        return 1 if WORSE in found else 2 if UNDECIDED in found else 0


def compare_models(
    spec: Spec,
    items: Sequence[Item],
    answerers: tuple[Answerer, Answerer],
    folder: Path,
    *,
    render: Render = "none",
    margin: float = 0.05,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Versus:
    """Ask OLD and NEW, judge both, compare. One journal each: a killed comparison asks nothing twice."""
    if not 0 < margin < 1:
        raise NormaError(f"--margin is a share between 0 and 1, not {margin:g}")
    asked = questions(spec, items, render)
    responses: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    for before, name, answerer in zip((0, len(asked)), (OLD, NEW), answerers, strict=True):

        def seen(done: int, total: int, before: int = before) -> None:
            progress(before + done, 2 * total)

        made = _ask(spec, asked, name, answerer, folder, seen)
        responses, verdicts = responses + made[0], verdicts + made[1]
    named = zip((OLD, NEW), ("Old", "New"), ("旧", "新"), answerers, strict=True)
    extras: Extras = {
        "baseline": OLD,
        "order": [OLD, NEW],
        "margin": margin,
        "labels": {name: {"en": f"{en}: {a.name}", "zh": f"{zh}：{a.name}"} for name, en, zh, a in named},
        "run": {"name": f"norma gate {spec.id}: {answerers[0].name} → {answerers[1].name}", "prompts": len(items), "render": render},
    }
    report = build_report(responses, verdicts, extras, spec)
    write_jsonl(folder / "responses.jsonl", responses)
    write_jsonl(folder / "verdicts.jsonl", verdicts)
    write_json(folder / "report.json", report)
    write_text(folder / "report.html", render_html(report))
    write_text(folder / "junit.xml", junit_xml(report))
    return Versus(report, tuple(findings(report)), folder)


def _ask(
    spec: Spec, asked: Sequence[Question], name: str, answerer: Answerer, folder: Path, progress: Callable[[int, int], None]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    with Journal(folder / f"answers.{name}.jsonl") as journal:
        answers = journaled([q.sent for q in asked], answerer, journal, progress)
    pairs = list(zip(asked, answers, strict=True))
    return (
        [response_row(q.item, a, name) for q, a in pairs if a.text is not None],
        [row for q, a in pairs for row in verdict_rows(spec, q.item, a, name)],
    )


def findings(report: Mapping[str, Any]) -> list[Finding]:
    """One finding per rule that was judged on both sides, requirements and guidelines alike."""
    alpha = 1 - report["settings"]["confidence"] + 1e-9
    targets = {c["rule"]: c["target"] for c in report["spec"]["rules"]}
    rates = {m["method"]: {r["rule"]: r for r in m["rules"]} for m in report["methods"]}
    found = []
    for row in report["comparisons"]:
        rule = row["rule"]
        if rule is None or row["role"] != "report" or row["language"] is not None:
            continue
        if row["delta"] is None:
            found.append(Finding(rule, UNDECIDED, "no prompt was decided on both sides", row))
            continue
        reached = [
            targets[rule] is None or outcome(rates[name][rule], targets[rule]) == "passed" for name in (OLD, NEW) if rule in rates[name]
        ]
        if reached == [True, False]:
            found.append(Finding(rule, WORSE, f"misses the target of {targets[rule]:g} that the old one reaches", row))
        elif row["high"] < 0 and row["p_holm"] <= alpha:
            found.append(Finding(rule, WORSE, "the whole interval lies below zero", row))
        elif row["low"] > 0 and row["p_holm"] <= alpha:
            found.append(Finding(rule, BETTER, "the whole interval lies above zero", row))
        elif row["non_inferior"]:
            found.append(Finding(rule, HELD, f"a loss of {row['margin']:g} or more is excluded", row))
        else:
            need = f": about {row['too_few']} prompts would tell" if row["too_few"] else ""
            found.append(Finding(rule, UNDECIDED, f"a loss of {row['margin']:g} is not excluded{need}", row))
    return found
