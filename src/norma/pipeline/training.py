"""How a stage was trained, from what it left behind: what the report and ``norma status --training`` show.

    metrics.jsonl ─→ curves, thinned ─────────────────┐
                  └→ alarms (norma.align.alarms) ─────┼─→ a record, JSON
    plan.json, options ─→ batch table, a coloured row ┘

Clocks (seconds, tokens a second) stay out: equal runs have equal records.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from norma.align.alarms import alarms, flat_words
from norma.base.files import read_json
from norma.train.metrics import CLOCKS

POINTS = 150  # of a curve: more are not seen
_LEFT_OUT = CLOCKS | {"step", "skipped", "tokens", "bytes", "learning_rate"}
# Where the options of a kind say how much a step holds; several numbers are multiplied.
_SEQUENCES = (("policy.questions", "policy.group"), ("pairs.pairs",), ("batch",), ("pairs",), ("marks",))


def trained(folders: Iterable[Path], labels: Mapping[str, Mapping[str, str]] | None = None) -> list[dict[str, Any]]:
    """The records of all artefacts among ``folders``, and of what they were made from, that were trained; the earliest first.

    Args:
        labels: the reader's name of a stage, {"en", "zh"}.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in _with_ancestors(folders):
        record = read_training(folder)
        if record is not None:
            found[folder.name] = record | {"label": dict((labels or {}).get(folder.name) or {"en": folder.name, "zh": folder.name})}
    return list(found.values())


def _with_ancestors(folders: Iterable[Path]) -> list[Path]:
    """Artefact folders of one run, each behind those that it was made from."""
    done: list[Path] = []

    def visit(folder: Path) -> None:
        if folder in done or not (folder / "lineage.json").is_file():
            return
        for name in read_json(folder / "lineage.json")["identity"].get("inputs", {}):
            visit(folder.parent / name)
        done.append(folder)

    for folder in folders:
        visit(folder)
    return done


def read_training(folder: Path) -> dict[str, Any] | None:
    """The record of one stage's folder, finished or not; None where nothing was trained."""
    path = folder / "metrics.jsonl"
    rows = _whole_rows(path) if path.is_file() else []
    if not rows:
        return None
    lineage = read_json(folder / "lineage.json") if (folder / "lineage.json").is_file() else {}
    plan = read_json(folder / "plan.json") if (folder / "plan.json").is_file() else {}
    identity = lineage.get("identity", {})
    return describe(str(lineage.get("stage", folder.name)), str(identity.get("kind", "")), identity.get("options", {}), plan, rows)


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """All rows up to a half-written one: the stage may be running."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def describe(
    stage: str, kind: str, options: Mapping[str, Any], plan: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The record of a training whose rows these are. Pure."""
    counted = [row for row in rows if not row.get("skipped")]
    names = list(dict.fromkeys(name for row in counted for name, value in row.items() if name not in _LEFT_OUT and _number(value)))
    flat = [row["flat_groups"] for row in counted if _number(row.get("flat_groups"))]
    said = [flat_words(sum(flat) / len(flat))] if flat and any(flat) else []
    if len(counted) < len(rows):
        skipped = len(rows) - len(counted)
        said.append(
            (f"{skipped} of {len(rows)} steps did not count: {_whys(rows)}.", f"{len(rows)} 步中有 {skipped} 步未计入：{_whys(rows)}。")
        )
    return {
        "stage": stage,
        "kind": kind,
        "steps": len(counted),
        "batch": batch_table(options, plan, counted),
        "row": [{"text": str(text), "part": str(part)} for text, part in plan.get("row", [])],
        "alarms": [alarm.row() for alarm in alarms(rows)],
        "said": [{"en": en, "zh": zh} for en, zh in said],
        "curves": [{"name": name, **thinned(counted, name)} for name in names],
    }


def _whys(rows: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(list(dict.fromkeys(str(row.get("why", "")) for row in rows if row.get("skipped")))[:3])


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def thinned(rows: Sequence[Mapping[str, Any]], name: str, points: int = POINTS) -> dict[str, list[float]]:
    """{"steps", "values"} of a number: its own points, or means of neighbours when there are more than ``points``."""
    known = [(float(row["step"]), float(row[name])) for row in rows if _number(row.get(name))]
    if len(known) > points:
        edges = [round(i * len(known) / points) for i in range(points + 1)]
        known = [_middle(known[a:b]) for a, b in pairwise(edges)]
    return {"steps": [step for step, _ in known], "values": [float(f"{value:.6g}") for _, value in known]}


def _middle(part: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(s for s, _ in part) / len(part), sum(v for _, v in part) / len(part)


def batch_table(options: Mapping[str, Any], plan: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What a step holds: sequences, tokens, what is in memory at one time, processes, steps. Only what is known.

    Tokens are those that the loss is about: of rows that log ``tokens`` their mean, of a policy its answers' tokens.
    """
    planned: Mapping[str, Any] = plan.get("batch", {})
    table: dict[str, float] = {}
    sequences = planned.get("sequences") or _first_product(options)
    if sequences:
        table["sequences"] = sequences
    tokens = [row["tokens"] for row in rows if _number(row.get("tokens"))]
    lengths = [row["answer_tokens"] for row in rows if _number(row.get("answer_tokens"))]
    if planned.get("length") and sequences:
        table["tokens"] = sequences * planned["length"]
    elif tokens:
        table["tokens"] = round(sum(tokens) / len(tokens))
    elif lengths and sequences:
        table["tokens"] = round(sequences * sum(lengths) / len(lengths))
    if "micro_batch" in plan:
        table["micro_batch"] = plan["micro_batch"]
    else:
        micro = [v for v in (_at(options, "policy.micro_tokens"), _at(options, "pairs.micro_tokens"), options.get("micro_tokens")) if v]
        table |= {"micro_tokens": micro[0]} if micro else {}
    table["processes"] = planned.get("processes", 1)
    table["steps"] = len(rows)
    if planned.get("steps_per_epoch"):
        table["epochs"] = float(f"{len(rows) / planned['steps_per_epoch']:.3g}")
    return table


def _first_product(options: Mapping[str, Any]) -> int | None:
    for paths in _SEQUENCES:
        values = [value for path in paths if isinstance(value := _at(options, path), int)]
        if len(values) == len(paths):
            return math.prod(values)
    return None


def _at(options: Mapping[str, Any], path: str) -> Any:
    value: Any = options
    for key in path.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
