"""A task model's predictions ─→ errors.html: the scores, a confusion matrix, reliability, and the worst examples first.

One file, no network, both languages inside. All that comes from data is escaped by autoescape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from norma.evaluate.report.page import _dressed, _environment

SHOWN = 200  # worst examples on the page
CUT = 600  # characters of a text

NAMES: Mapping[str, tuple[str, str]] = {
    "accuracy": ("accuracy", "准确率"),
    "macro_f1": ("macro F1", "宏平均 F1"),
    "entity_f1": ("F1 of entities", "实体 F1"),
    "exact": ("exact match", "完全匹配"),
    "f1": ("F1", "F1"),
    "silent_rightly": ("silent where there is no answer", "无答案时正确地不作答"),
}


def worst(predictions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The predictions that the page shows, in its order. They have ``right``, from 0 to 1: how good each is."""
    return _wrong(predictions)[:SHOWN]


def _wrong(predictions: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [p for p in sorted(predictions, key=lambda p: p["right"]) if not _right(p)]


def render_errors(
    scores: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]], *, title: str, looks: Sequence[Mapping[str, Any] | None] = ()
) -> str:
    """The page as text. ``looks``: for each of :func:`worst`, what the model looked at (``norma.tasks.attending``), or None."""
    measured = [(name, value) for name, value in scores.items() if isinstance(value, Mapping)]
    found = [{"name": NAMES.get(name, (name, name)), "bounds": None, **value} for name, value in measured if "rate" in value]
    texts = [{"name": (name, name), **value} for name, value in measured if "score" in value]
    missed, shown = len(_wrong(predictions)), worst(predictions)
    wrong = [_example(p, look) for p, look in zip(shown, [*looks, *[None] * (len(shown) - len(looks))], strict=True)]
    labels = [row["label"] for row in scores.get("labels", [])]
    confusion = scores.get("confusion")
    return (
        _environment()
        .get_template("errors.html.jinja")
        .render(
            title=title,
            scores=scores,
            rates=found,
            texts=texts,
            labels=labels,
            confusion=_shades(confusion) if confusion and len(labels) <= 30 else None,
            bins=scores.get("calibration", {}).get("bins", []),
            wrong=wrong,
            missed=missed,
            total=len(predictions),
            **_dressed("view.js", "errors.js", "attention.js"),
        )
    )


def _right(row: Mapping[str, Any]) -> bool:
    """Whether there is nothing to see: the right label, all labels, the whole answer. Texts are all shown, the worst first."""
    if "label" in row:
        return bool(row["label"] == row["predicted"])
    return bool(row["right"] >= 1.0) and "target" not in row


def _shades(confusion: Sequence[Sequence[int]]) -> list[list[dict[str, Any]]]:
    """Each count with its share of the row: the cell's shade."""
    return [[{"n": n, "share": n / max(1, sum(row)), "right": i == j} for j, n in enumerate(row)] for i, row in enumerate(confusion)]


def _example(row: Mapping[str, Any], look: Mapping[str, Any] | None) -> dict[str, Any]:
    """What was read, what people said, what the model said."""
    read: list[str] = [row[name] for name in ("question", "context", "text", "pair", "source") if name in row]
    words: list[tuple[str, str, str]] = []
    if "tokens" in row:
        words = list(zip(row["tokens"], row["labels"], row["predicted"], strict=True))
    given = row.get("label", row.get("target", ""))
    if "answers" in row:
        given = " / ".join(dict.fromkeys(a["text"] for a in row["answers"])) or "∅"
    said = "" if words else row["predicted"] or "∅"
    return {
        "id": row.get("id", ""),
        "read": [text if len(text) <= CUT else text[:CUT] + "…" for text in read],
        "words": words,
        "given": given,
        "said": said,
        "probability": row.get("probability") if isinstance(row.get("probability"), float) else None,
        "right": row["right"],
        "look": None if look is None else json.dumps(look, ensure_ascii=False, separators=(",", ":")),
    }
