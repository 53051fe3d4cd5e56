"""Examples a reader can judge: answers that keep a rule, break it, or on which training and held-out checkers disagree.

    responses + verdicts ─→ per rule, method and kind (kept, broken, disputed, undecided) ─→ a seeded draw, prompts shared where possible

The draw prefers prompts by one seeded order for all methods, so that the same question is often seen answered by several methods.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

QUESTION_LIMIT, ANSWER_LIMIT = 700, 1000  # characters


def choose_examples(
    responses: Sequence[Mapping[str, Any]],
    verdicts: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    rules: Sequence[str],
    baseline: str,
    *,
    count: int = 2,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """At most ``count`` examples of each kind per rule and method."""
    answers = {
        (str(r["method"]), str(r["item"]), int(r.get("sample", 0))): r for r in responses if r.get("set", "questions") == "questions"
    }
    judged: dict[tuple[str, str, str, int], dict[str, Mapping[str, Any]]] = {}
    for row in verdicts:
        key = (str(row["rule"]), str(row["method"]), str(row["item"]), int(row.get("sample", 0)))
        # Several checkers of one role: show the one that objects.
        roles = judged.setdefault(key, {})
        if row["role"] not in roles or row["status"] == "violation":
            roles[str(row["role"])] = row
    found: dict[tuple[str, str, str], list[tuple[str, dict[str, Any]]]] = {}
    for (rule, method, item, sample), roles in judged.items():
        answer, main = answers.get((method, item, sample)), roles.get("report")
        if answer is None or main is None:
            continue
        kind = _kind(roles)
        if kind is None:
            continue
        other = answers.get((baseline, item, sample)) if method != baseline else None
        heldout = roles.get("heldout")
        shown = heldout if kind == "disputed" and heldout is not None else main
        place = hashlib.sha256(f"{seed}:{rule}:{item}:{sample}".encode()).hexdigest()
        found.setdefault((rule, method, kind), []).append(
            (
                place,
                {
                    "rule": rule,
                    "method": method,
                    "kind": kind,
                    "item": item,
                    "language": str(answer.get("language", "")),
                    "question": question_text(answer.get("messages", [])),
                    "answer": str(answer["response"])[:ANSWER_LIMIT],
                    "cut": len(str(answer["response"])) > ANSWER_LIMIT,
                    "evidence": cut_spans(shown.get("evidence") or [], min(len(str(answer["response"])), ANSWER_LIMIT)),
                    "note": str(shown.get("note") or ""),
                    "checker": str(shown.get("checker") or ""),
                    "report": str(main["status"]),
                    "heldout": None if heldout is None else str(heldout["status"]),
                    "baseline_answer": None if other is None else str(other["response"])[:ANSWER_LIMIT],
                },
            )
        )
    ranked = {group: [e for _, e in sorted(rows, key=lambda pair: pair[0])[:count]] for group, rows in found.items()}
    # First one of every group, then the second ones: whatever the reader filters by, the first cards differ.
    return [
        ranked[rule, method, kind][turn]
        for turn in range(count)
        for rule in rules
        for kind in ("disputed", "broken", "kept", "undecided")
        for method in methods
        if turn < len(ranked.get((rule, method, kind), []))
    ]


def _kind(roles: Mapping[str, Mapping[str, Any]]) -> str | None:
    main, heldout = str(roles["report"]["status"]), roles.get("heldout")
    if main == "compliant":
        return "disputed" if heldout is not None and heldout["status"] == "violation" else "kept"
    return {"violation": "broken", "unsure": "undecided", "error": "undecided"}.get(main)


def question_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the user said last: system prompts are the same for all and would drown it."""
    said = [str(m.get("content", "")) for m in messages if m.get("role") == "user"]
    text = said[-1] if said else ""
    return text if len(text) <= QUESTION_LIMIT else text[:QUESTION_LIMIT].rstrip() + " …"


def cut_spans(given: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """Evidence spans inside the shown text, sorted and merged."""
    merged: list[list[int]] = []
    for start, end in sorted((max(0, int(s[0])), min(length, int(s[1]))) for s in given):
        if start >= end:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return merged
