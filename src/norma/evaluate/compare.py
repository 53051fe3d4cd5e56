"""``norma compare A B``: two models side by side, on prompts, tasks and a spec.

prompts, or the spec's own ─→ both answer (norma.evaluate.versus, journaled) ─→ answers side by side, a mark per rule
spec                       ─→ the paired comparison of every rule                                    ├─→ compare.json ─→ compare.html
tasks                      ─→ norma.evaluate.benchmarks of each ─→ paired differences, Holm ─────────┘

OUT/compare.html  OUT/compare.json  OUT/spec/ (the compliance report of both)  OUT/a/, OUT/b/ (results of the tasks)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from norma.base.errors import NormaError
from norma.base.files import write_json, write_text
from norma.evaluate.benchmarks import Task, compare_results, evaluate
from norma.evaluate.benchmarks.run import How
from norma.evaluate.benchmarks.subject import Subject
from norma.evaluate.gate import Render
from norma.evaluate.report.compare import render_compare
from norma.evaluate.sampling import Answer, Answerer, Journal, journaled
from norma.evaluate.versus import NEW, OLD, Versus, compare_models

if TYPE_CHECKING:
    from norma.spec import Item, Spec

SIDES = ("a", "b")
Progress = Callable[[int, int], None]


def compare(
    subjects: tuple[Subject, Subject],
    folder: Path,
    *,
    answerers: tuple[Answerer, Answerer],
    items: Sequence[Item] = (),
    spec: Spec | None = None,
    render: Render = "none",
    tasks: Mapping[str, Task] | None = None,
    how: How | None = None,
    margin: float = 0.05,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Ask both, compare, write the page; compare.json as a dict. Stopped, it goes on where it was.

    Raises NormaError where there is nothing to compare by.
    """
    if not items and not tasks:
        raise NormaError("nothing to compare the two by", mend="Give --spec, --prompts or --tasks")
    versus = None
    answers: list[dict[str, Any]] = []
    if spec is not None and items:
        versus = compare_models(spec, items, answerers, folder / "spec", render=render, margin=margin, progress=progress)
        answers = _judged(items, versus)
    elif items:
        answers = _plain(items, answerers, folder, progress)
    changes: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    if tasks:
        for side, subject in zip(SIDES, subjects, strict=True):
            results.append(evaluate(subject, tasks, folder / side, how, progress=lambda name, done, total: progress(done, total)))
        changes = compare_results(folder / "a", folder / "b", seed=(how or How()).seed)
    out = {
        "models": [{"side": side, "name": a.name, "identity": s.identity} for side, a, s in zip(SIDES, answerers, subjects, strict=True)],
        "confidence": 0.95,
        "answers": answers,
        "rules": [] if versus is None else [_rule(f, versus, spec) for f in versus.findings],
        "overall": None if versus is None else _overall(versus),
        "spec": None if spec is None else {"id": spec.id, "version": spec.version, "digest": spec.digest},
        "tasks": changes,
        "notes": [f"{t['task']}, {t['shots']}: {n}" for r in results[:1] for t in r["tasks"] for n in t["notes"]],
    }
    write_json(folder / "compare.json", out)
    write_text(folder / "compare.html", render_compare(out))
    return out


def _judged(items: Sequence[Item], versus: Versus) -> list[dict[str, Any]]:
    """Answers of both with what every rule says of them (the report's checkers)."""
    from norma.base.files import read_jsonl

    said = {(r["method"], r["item"]): r["response"] for r in read_jsonl(versus.folder / "responses.jsonl")}
    marks: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in read_jsonl(versus.folder / "verdicts.jsonl"):
        if row["role"] == "report" and row["status"] != "not_applicable":
            kept = {name: row[name] for name in ("rule", "status", "note", "evidence")}
            marks.setdefault((row["method"], row["item"]), []).append(kept)
    return [_answer(item, [(said.get((method, item.id)), marks.get((method, item.id), [])) for method in (OLD, NEW)]) for item in items]


def _plain(items: Sequence[Item], answerers: tuple[Answerer, Answerer], folder: Path, progress: Progress) -> list[dict[str, Any]]:
    found: list[list[Answer]] = []
    for place, (side, answerer) in enumerate(zip(SIDES, answerers, strict=True)):

        def seen(done: int, total: int, before: int = place * len(items)) -> None:
            progress(before + done, 2 * len(items))

        with Journal(folder / f"answers.{side}.jsonl") as journal:
            found.append(journaled(items, answerer, journal, seen))
    return [_answer(item, [(a.text, []), (b.text, [])]) for item, a, b in zip(items, *found, strict=True)]


def _answer(item: Item, sides: Sequence[tuple[str | None, list[dict[str, Any]]]]) -> dict[str, Any]:
    marks = [{v["rule"]: v["status"] for v in verdicts} for _, verdicts in sides]
    return {
        "item": item.id,
        "language": item.language,
        "messages": [dict(m) for m in item.messages],
        "sides": [{"text": text, "verdicts": verdicts} for text, verdicts in sides],
        "same": sides[0][0] == sides[1][0],
        "differs": sorted(r for r in marks[0].keys() | marks[1].keys() if marks[0].get(r) != marks[1].get(r)),
    }


def _rule(finding: Any, versus: Versus, spec: Spec | None) -> dict[str, Any]:
    card: Mapping[str, Any] = next((c for c in versus.report["spec"]["rules"] if c["rule"] == finding.rule), {})
    numbers = ("before_rate", "after_rate", "delta", "low", "high", "p", "p_holm", "n", "clusters", "better", "worse", "too_few")
    row = {name: finding.row[name] for name in numbers}
    return {"rule": finding.rule, "statement": card.get("statement", {}), "target": card.get("target"), "found": finding.found, **row}


def _overall(versus: Versus) -> dict[str, Any] | None:
    for row in versus.report["comparisons"]:
        if row["family"] == "overall" and row["rule"] is None and row["delta"] is not None:
            return {name: row[name] for name in ("before_rate", "after_rate", "delta", "low", "high", "p", "p_holm", "n", "clusters")}
    return None
