"""One answer judged for another tool: a rule's report checkers, reduced to pass, fail or no verdict.

promptfoo and lm-eval call these functions from Python, so that their numbers come from the same checkers as Norma's. A rule that does
not apply, cannot be resolved, or whose checker failed gives no verdict: neither a pass nor a zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from norma.spec.spec import Spec
from norma.spec.types import Item, Message, Status

# When several checkers judge one rule all must be content: one violation decides, then what is missing.
_ORDER = (Status.VIOLATION, Status.ERROR, Status.UNSURE, Status.NOT_APPLICABLE, Status.COMPLIANT)


@lru_cache(maxsize=8)
def load(path: str, modified: float = 0.0) -> Spec:
    """The spec at ``path``; read once for each state of the file."""
    return Spec.load(path)


def item_of(row: Mapping[str, Any]) -> Item:
    """A row {id, messages, language, facts} as an input."""
    messages = tuple(Message(role=m["role"], content=m["content"]) for m in row["messages"])
    return Item(str(row.get("id", "")), messages, str(row.get("language") or "en"), dict(row.get("facts") or {}))


def judge(spec: Spec, item: Item, answer: str) -> dict[str, tuple[Status, float | None, str]]:
    """Rule -> (status, score, why), for every rule with a report checker."""
    found: dict[str, tuple[Status, float | None, str]] = {}
    for verdict in spec.verdicts(item, answer, "report"):
        said = (verdict.status, verdict.score, verdict.note)
        known = found.get(verdict.rule)
        found[verdict.rule] = said if known is None else min(known, said, key=lambda s: _ORDER.index(s[0]))
    return found


def promptfoo(output: str, context: Mapping[str, Any]) -> dict[str, Any]:
    """promptfoo's grading of one answer under one rule. ``context.vars`` holds norma_spec (a path), norma_rule and norma_item."""
    given = context["vars"]
    path = Path(given["norma_spec"])
    spec = load(str(path), path.stat().st_mtime)
    status, score, why = judge(spec, item_of(given["norma_item"]), output)[given["norma_rule"]]
    if status in (Status.COMPLIANT, Status.VIOLATION):
        return {"pass": status is Status.COMPLIANT, "score": float(score or 0.0), "reason": f"{given['norma_rule']}: {status.value}. {why}"}
    if status is Status.NOT_APPLICABLE:
        return {"pass": True, "score": 1.0, "reason": f"{given['norma_rule']} does not apply. {why}"}
    raise ValueError(f"{given['norma_rule']}: no verdict ({status.value}). {why}")  # promptfoo counts it as an error


def lm_eval(path: str, doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval's numbers for one answer: rule -> 1.0, 0.0, or NaN without a verdict; ``norma_kept``: the mean over the decided."""
    spec = load(path, Path(path).stat().st_mtime)
    found = judge(spec, item_of(doc), results[0])
    values = {rule: float(s[0] is Status.COMPLIANT) for rule, s in found.items() if s[0] in (Status.COMPLIANT, Status.VIOLATION)}
    mean = sum(values.values()) / len(values) if values else float("nan")
    return {"norma_kept": mean} | {rule: values.get(rule, float("nan")) for rule in spec.checkers("report")}


def mean_of_scored(values: Sequence[float]) -> float:
    """The mean of what is a number; NaN when nothing is."""
    scored = [v for v in values if v == v]
    return sum(scored) / len(scored) if scored else float("nan")
