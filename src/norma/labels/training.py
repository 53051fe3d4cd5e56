"""Labels as training rows, in the columns that TRL and Hugging Face data sets use.

    sft          messages                    accepted corrections
    preference   prompt, chosen, rejected    accepted corrections over what they correct
    kto          prompt, completion, label   every answer with a verdict: False where a rule is broken
    classifier   text, prompt, rule, label   one row an answer and rule; label 1 is a violation

A correction is accepted only when no active rule of equal or higher level gets worse by it and the edit is small: a mended tone must not
cost a refusal. Verdicts of several people are made one by ``consensus``. Rows are in the order of the labels' keys, whatever the store's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, Protocol

from norma.labels.consensus import consensus
from norma.labels.formats.batch import shown
from norma.labels.rows import Label
from norma.spec import Item, Role, Spec, Status, Verdict
from norma.spec.schema import CorrectEntry

# From worst to best. An error or doubt is worse than a pass, and better than a known violation.
_ORDER = {Status.VIOLATION: 0, Status.ERROR: 1, Status.UNSURE: 1, Status.NOT_APPLICABLE: 2, Status.COMPLIANT: 2}


class Judge(Protocol):
    """The verdicts of an answer; ``Spec.verdicts`` is one."""

    def __call__(self, item: Item, response: str, role: Role) -> list[Verdict]: ...


@dataclass(frozen=True)
class Rows:
    """Training rows, and why other labels gave none: {reason: labels}."""

    rows: list[dict[str, Any]]
    left_out: Counter[str] = field(default_factory=Counter)


def edit_ratio(original: str, corrected: str) -> float:
    """The share of the text that an edit changed: 1 - 2 M / T of ``difflib`` (M characters in common, T in both)."""
    return 1 - SequenceMatcher(None, original, corrected, autojunk=False).ratio()


def refusal(spec: Spec, item: Item, label: Label, *, role: Role = "train", judge: Judge | None = None) -> str:
    """Why a correction is not accepted, or ""."""
    assert label.corrected is not None
    rule = next((r for r in spec.rules if r.id == label.rule), None)
    if rule is None:
        return "the spec has no such rule"
    if label.rule_hash and label.rule_hash != rule.hash:
        return "the rule has changed its meaning since"
    if label.corrected == label.response:
        return "nothing was changed"
    limit = (rule.correct or CorrectEntry()).max_edit_ratio
    if edit_ratio(label.response, label.corrected) > limit:
        return "the edit is larger than the rule's max_edit_ratio"
    verdicts = judge or spec.verdicts
    active = set(spec.resolve(item).active)
    level = spec.levels.index(rule.level)
    guarded = {r.id for r in spec.rules if r.id in active and spec.levels.index(r.level) <= level}
    before, after = (_worst(verdicts(item, text, role), guarded) for text in (label.response, label.corrected))
    worse = sorted(r for r in after if _ORDER[after[r]] < _ORDER[before.get(r, Status.COMPLIANT)])
    return f"'{worse[0]}' gets worse" if worse else ""


def _worst(verdicts: Iterable[Verdict], rules: set[str]) -> dict[str, Status]:
    """{rule: the worst verdict of its checkers}."""
    worst: dict[str, Status] = {}
    for verdict in verdicts:
        if verdict.rule in rules and (verdict.rule not in worst or _ORDER[verdict.status] < _ORDER[worst[verdict.rule]]):
            worst[verdict.rule] = verdict.status
    return worst


def corrections(
    labels: Iterable[Label], items: Mapping[str, Item], spec: Spec, *, role: Role = "train", judge: Judge | None = None
) -> tuple[list[Label], Counter[str]]:
    """The labels whose corrections are accepted, each different correction of an answer once; and why the others were not."""
    accepted: list[Label] = []
    why: Counter[str] = Counter()
    seen: set[tuple[str, str, str]] = set()
    for label in labels:
        if label.corrected is None:
            continue
        item = items.get(label.item)
        place = (label.item, label.response, label.corrected)
        reason = "its input is not in the store" if item is None else refusal(spec, item, label, role=role, judge=judge)
        if reason:
            why[reason] += 1
        elif place not in seen:
            seen.add(place)
            accepted.append(label)
    return accepted, why


def sft_rows(accepted: Iterable[Label], items: Mapping[str, Item]) -> list[dict[str, Any]]:
    """Conversations that end with the corrected answer."""
    return [{**_about(m), "messages": [*_prompt(m, items), _answer(m.corrected)]} for m in accepted]


def preference_rows(accepted: Iterable[Label], items: Mapping[str, Item]) -> list[dict[str, Any]]:
    """Corrected over original."""
    return [
        {**_about(m), "prompt": _prompt(m, items), "chosen": [_answer(m.corrected)], "rejected": [_answer(m.response)]} for m in accepted
    ]


def kto_rows(labels: Iterable[Label], items: Mapping[str, Item]) -> Rows:
    """One row an answer: False where any rule is broken, True where at least one is kept and none is broken or in doubt."""
    rows = Rows([])
    answers: dict[tuple[str, str], dict[str, list[Label]]] = defaultdict(lambda: defaultdict(list))
    for label in labels:
        answers[label.item, label.response][label.rule].append(label)
    for (item, response), rules in answers.items():
        first = next(iter(rules.values()))[0]
        said = {rule: consensus(marks) for rule, marks in rules.items()}
        broken = Status.VIOLATION in said.values()
        if item not in items:
            rows.left_out["its input is not in the store"] += 1
        elif not broken and (Status.UNSURE in said.values() or Status.COMPLIANT not in said.values()):
            rows.left_out["no verdict: unsure, a tie, or nothing applies"] += 1
        else:
            about = {"id": item, "language": first.language}
            rows.rows.append({**about, "prompt": _prompt(first, items), "completion": [_answer(response)], "label": not broken})
    return rows


def classifier_rows(labels: Iterable[Label], items: Mapping[str, Item]) -> Rows:
    """One row an answer and rule that applies: ``label`` 1 is a violation; ``share`` of the ``marks`` that say so."""
    rows = Rows([])
    groups: dict[tuple[str, str, str, str], list[Label]] = defaultdict(list)
    for label in labels:
        groups[label.item, label.response, label.rule, label.rule_hash].append(label)
    for (item, response, rule, hash), marks in groups.items():
        status = consensus(marks)
        if status not in (Status.COMPLIANT, Status.VIOLATION):
            rows.left_out["not applicable" if status is Status.NOT_APPLICABLE else "no verdict: unsure or a tie"] += 1
            continue
        said = [m for m in marks if m.verdict in (Status.COMPLIANT, Status.VIOLATION)]
        prompt = items.get(item)
        rows.rows.append(
            {
                "id": item,
                "language": marks[0].language,
                "rule": rule,
                "rule_hash": hash,
                "prompt": shown(prompt.messages) if prompt else "",
                "text": response,
                "label": int(status is Status.VIOLATION),
                "share": sum(m.verdict == Status.VIOLATION for m in said) / len(said),
                "marks": len(said),
            }
        )
    return rows


def _about(label: Label) -> dict[str, Any]:
    return {"id": label.item, "language": label.language, "rule": label.rule, "rule_hash": label.rule_hash, "annotator": label.annotator}


def _prompt(label: Label, items: Mapping[str, Item]) -> list[dict[str, Any]]:
    return [dict(m) for m in items[label.item].messages]


def _answer(text: str | None) -> dict[str, Any]:
    return {"role": "assistant", "content": text}
