"""Two models on the same rows: which difference is more than chance?

rows/TASK.SHOTS.jsonl of A and of B ─→ rows that both have ─→ change with interval and p ─→ Holm over all tasks and scores named first
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl
from norma.evaluate.benchmarks.intervals import change
from norma.evaluate.benchmarks.scores import SCORES
from norma.evaluate.statistics import holm


def compare_results(first: Path, second: Path, *, seed: int = 0) -> list[dict[str, Any]]:
    """Paired differences (second - first) of every task that two folders of :func:`norma.evaluate.benchmarks.evaluate` share.

    The first score of a task is its main one: Holm's correction is over these, one a task and number of examples. The others are shown
    with their own p. Raises NormaError where they share no row.
    """
    a, b = (read_json(folder / "results.json") for folder in (first, second))
    shared = {(t["task"], t["shots"]) for t in a["tasks"]} & {(t["task"], t["shots"]) for t in b["tasks"]}
    found: list[dict[str, Any]] = []
    for task in a["tasks"]:
        name, shots = task["task"], task["shots"]
        if (name, shots) not in shared:
            continue
        rows = [_by_id(folder, name, shots) for folder in (first, second)]
        both = [i for i in rows[0] if i in rows[1]]
        if not both:
            raise NormaError(
                f"the two share no row of '{name}'", where=second, mend="Evaluate both on the same data with the same seed and count"
            )
        for place, score in enumerate(task["scores"]):
            found.append(_change(score["score"], rows, both, seed) | {"task": name, "shots": shots, "main": place == 0})
    if not found:
        raise NormaError("the two were not evaluated on the same tasks", where=second)
    main = [row for row in found if row["main"]]
    for row, p in zip(main, holm([r["p"] for r in main]), strict=True):
        row["p_holm"] = p
    return found


def _by_id(folder: Path, name: str, shots: int) -> dict[str, Mapping[str, Any]]:
    out: dict[str, Mapping[str, Any]] = {}
    seen: dict[str, int] = {}
    for row in read_jsonl(folder / "rows" / f"{name}.{shots}.jsonl"):
        number = seen[row["id"]] = seen.get(row["id"], -1) + 1  # the same content may stand in a file twice
        out[f"{row['id']}#{number}"] = row
    return out


def _change(name: str, rows: Sequence[Mapping[str, Mapping[str, Any]]], both: Sequence[str], seed: int) -> dict[str, Any]:
    score = SCORES[name]
    before, after = (np.array([side[i]["stats"][name] for i in both]) for side in rows)
    made = change(score, before, after, [rows[0][i]["cluster"] for i in both], seed=seed)
    return {"score": name, "unit": score.unit, "lower_is_better": score.lower_is_better, **asdict(made), "p_holm": None}
