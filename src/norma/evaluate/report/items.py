"""The items behind the numbers: questions, answers and marks, packed so that a page can show what any rate was made of.

    responses + verdicts (main tables) ─→ questions (one list), answers per method, one string of marks per method, role and rule

A mark is one letter in the order of the questions: k kept, v violation, n not applicable, u unsure, e error, "." nobody judged.
With more than ``limit`` questions a seeded draw is packed, and the report says how many of how many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from norma.evaluate.report.examples import ANSWER_LIMIT, cut_spans, question_text

LIMIT = 400
LETTERS = {"compliant": "k", "violation": "v", "not_applicable": "n", "unsure": "u", "error": "e"}
_GRAVEST = "nkuev"  # of several checkers or samples of one role the gravest mark is shown


def pack_items(
    responses: Sequence[Mapping[str, Any]],
    verdicts: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    rules: Sequence[str],
    *,
    limit: int = LIMIT,
    seed: int = 0,
) -> dict[str, Any]:
    """``{"total", "questions", "answers", "marks"}`` as JSON values; only the first sample of a question is packed."""
    known = {str(v["item"]): v for v in reversed(verdicts)}
    asked = {str(r["item"]): r for r in reversed(responses)}
    order = list(dict.fromkeys([*(str(r["item"]) for r in responses), *(str(v["item"]) for v in verdicts)]))
    chosen = order
    if len(order) > limit:
        drawn = set(sorted(order, key=lambda item: hashlib.sha256(f"{seed}:{item}".encode()).hexdigest())[:limit])
        chosen = [item for item in order if item in drawn]
    place = {item: i for i, item in enumerate(chosen)}
    answers: dict[str, list[str | None]] = {m: [None] * len(chosen) for m in methods}
    for row in responses:
        if row["method"] in answers and str(row["item"]) in place and int(row.get("sample", 0)) == 0:
            text = str(row["response"])
            answers[row["method"]][place[str(row["item"])]] = text[:ANSWER_LIMIT] + ("…" if len(text) > ANSWER_LIMIT else "")
    return {
        "total": len(order),
        "questions": [_question(item, asked.get(item) or known[item]) for item in chosen],
        "answers": [{"method": m, "texts": texts} for m, texts in answers.items()],
        "marks": _marks(verdicts, methods, rules, place),
    }


def _question(item: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "item": item,
        "cluster": str(row.get("cluster") or item),
        "language": str(row.get("language") or ""),
        "text": question_text(row.get("messages", [])),
    }


def _marks(
    verdicts: Sequence[Mapping[str, Any]], methods: Sequence[str], rules: Sequence[str], place: Mapping[str, int]
) -> list[dict[str, Any]]:
    letters: dict[tuple[str, str, str], list[str]] = {}
    told: dict[tuple[str, str, str], dict[int, list[Any]]] = {}
    for v in verdicts:
        key = (str(v["method"]), str(v["role"]), str(v["rule"]))
        if key[0] not in methods or key[2] not in rules or str(v["item"]) not in place or int(v.get("sample", 0)) != 0:
            continue
        i, letter = place[str(v["item"])], LETTERS[str(v["status"])]
        row = letters.setdefault(key, ["."] * len(place))
        if row[i] != "." and _GRAVEST.index(letter) <= _GRAVEST.index(row[i]):
            continue
        row[i] = letter
        note, marked = str(v.get("note") or ""), cut_spans(v.get("evidence") or [], ANSWER_LIMIT)
        told.setdefault(key, {}).pop(i, None)
        if letter != "n" and (note or marked):
            told[key][i] = [i, note, marked]
    return [
        {
            "method": m,
            "role": role,
            "rule": rule,
            "marks": "".join(row),
            "told": [told[m, role, rule][i] for i in sorted(told[m, role, rule])],
        }
        for (m, role, rule), row in letters.items()
    ]
