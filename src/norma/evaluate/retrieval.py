"""Does retrieval find what is asked for? The share of questions with a right answer in the first k passages.

Retrieval accuracy of Karpukhin et al., 2004.04906, section 5. The unit of independence is the paragraph that a question was made from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from norma.evaluate.benchmarks.rows import examples
from norma.evaluate.benchmarks.task import Task
from norma.evaluate.statistics import clustered_rate, paired_difference
from norma.generate.retrieval import How, Index


def recall(index: Index, questions: Path, depths: Sequence[int], count: int | None = None) -> list[dict[str, Any]]:
    """A row for each way and depth: rate and interval, and against BM25 the paired difference with its p."""
    task = Task(kind="answer", data=str(questions), prompt="{question}", answer="{answers}")
    asked = [e for e in examples(task, "questions", "test", count=count) if any(e.answers)]
    ways: list[How] = ["bm25", "vectors", "both"] if index.has_vectors else ["bm25"]
    clusters = [e.cluster for e in asked]
    out: list[dict[str, Any]] = []
    base: dict[int, list[float]] = {}
    if index.has_vectors:
        index.read([e.prompt for e in asked])
    for way in ways:
        ranks = [_rank(index, e.prompt, e.answers, max(depths), way) for e in asked]
        for depth in depths:
            values = [float(r <= depth) for r in ranks]
            rate = clustered_rate(values, clusters)
            base.setdefault(depth, values)
            change = paired_difference(base[depth], values, clusters)
            row = {"way": way, "depth": depth, "rate": rate.rate, "low": rate.low, "high": rate.high, "n": rate.n}
            out.append(row | ({} if way == "bm25" else {"delta": change.delta, "p": change.p}))
    return out


def _rank(index: Index, question: str, answers: Sequence[str], depth: int, way: How) -> int:
    """The place, from 1, of the first passage that holds an answer; depth + 1 where none does."""
    for place, hit in enumerate(index.search(question, depth, way), 1):
        text = f"{hit.passage.title}\n{hit.passage.text}".casefold()
        if any(a.casefold() in text for a in answers if a):
            return place
    return depth + 1


def recall_table(rows: Sequence[dict[str, Any]]) -> Any:
    """For a terminal."""
    from rich import box
    from rich.table import Table

    from norma.evaluate.report.figures import p_value, percent, points

    table = Table(title="right answer among the first passages", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for name in ("by", "passages", "%", "95% interval", "against bm25", "p", "questions"):
        table.add_column(name, justify="left" if name == "by" else "right")
    for r in rows:
        span = f"{percent(r['low'], unit=False)} – {percent(r['high'], unit=False)}"
        against = (points(r["delta"]), p_value(r["p"])) if "delta" in r else ("", "")
        table.add_row(r["way"], str(r["depth"]), percent(r["rate"], unit=False), span, *against, str(r["n"]))
    return table
