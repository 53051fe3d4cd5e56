"""inspect_ai: results as a log of format 2, which `inspect view` and inspect_ai.analysis open.

    responses.jsonl, verdicts.jsonl ─→ per method: a log with a sample per answer, a score per rule: 1, 0, or NaN where nothing was decided

NaN is inspect's own mark for "unscored": a rule that does not apply, or whose checker was unsure or failed, is neither a pass nor a zero,
and the metric counts the scored samples only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl, write_text
from norma.base.hashing import digest

HELP = "results of a run or check as inspect_ai logs (format 2), one file per method; NaN for what is unscored"

_DECIDED = {"compliant": 1.0, "violation": 0.0}
_PRECEDENCE = ("violation", "error", "unsure", "not_applicable", "compliant")


def write(source: Path, out: Path, language: str | None) -> list[Path]:
    """A folder of logs, one per method. ``source``: a run folder, an evaluate stage's folder, or the folder of `norma check`."""
    folder = next((f for f in (source, source / "evaluate") if (f / "verdicts.jsonl").is_file()), None)
    if folder is None:
        raise NormaError("there are no results here (verdicts.jsonl)", where=source, mend="Give a run folder or that of 'norma check'")
    report = read_json(folder / "report.json") if (folder / "report.json").is_file() else {}
    made = logs(
        read_jsonl(folder / "responses.jsonl"),
        read_jsonl(folder / "verdicts.jsonl"),
        report.get("spec", {}).get("id", "norma"),
        datetime.fromtimestamp((folder / "verdicts.jsonl").stat().st_mtime, UTC).isoformat(timespec="seconds"),
        language,
    )
    paths = []
    for method, log in made.items():
        paths.append(out / f"{method.replace('/', '_')}.json")
        out.mkdir(parents=True, exist_ok=True)
        write_text(paths[-1], json.dumps(log, ensure_ascii=False, indent=1))  # NaN as inspect_ai writes it
    return paths


def logs(
    responses: Iterable[Mapping[str, Any]], verdicts: Iterable[Mapping[str, Any]], task: str, created: str, language: str | None = None
) -> dict[str, dict[str, Any]]:
    """Method -> log. Only the role report is scored: held-out opinions are a table of their own in Norma's report."""
    found: dict[tuple[str, str, int], dict[str, Mapping[str, Any]]] = {}
    for row in verdicts:
        if row["role"] == "report":
            rules = found.setdefault((row["method"], row["item"], int(row.get("sample", 0))), {})
            known = rules.get(row["rule"])
            rules[row["rule"]] = row if known is None else min(known, row, key=lambda r: _PRECEDENCE.index(r["status"]))
    samples: dict[str, list[dict[str, Any]]] = {}
    for answer in responses:
        key = (answer["method"], answer["item"], int(answer.get("sample", 0)))
        if key in found and language in (None, answer.get("language")):
            samples.setdefault(answer["method"], []).append(_sample(answer, key[2], found[key]))
    return {method: _log(method, rows, task, created) for method, rows in samples.items()}


def _sample(answer: Mapping[str, Any], number: int, rules: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    said = {"role": "assistant", "content": answer["response"], "source": "generate"}
    scores = {
        rule: {
            "value": _DECIDED.get(row["status"], math.nan),
            "answer": answer["response"],
            "explanation": f"{row['status']}" + (f": {row['note']}" if row["note"] else ""),
            "metadata": {k: row[k] for k in ("rule_hash", "checker", "checker_digest", "score")},
        }
        for rule, row in rules.items()
    }
    asked = [{"role": "system" if m["role"] == "developer" else m["role"], "content": m["content"]} for m in answer["messages"]]
    return {
        "id": answer["item"],
        "epoch": number + 1,
        "input": asked,
        "target": answer.get("reference") or "",
        "messages": [*asked, said],
        "output": {"model": answer["method"], "choices": [{"message": said, "stop_reason": _stop(answer.get("finish"))}]},
        "scores": scores,
        "metadata": {"cluster": answer.get("cluster"), "language": answer.get("language")},
    }


def _stop(finish: Any) -> str:
    return {"length": "max_tokens"}.get(str(finish), "stop")


def _log(method: str, samples: list[dict[str, Any]], task: str, created: str) -> dict[str, Any]:
    rules = list(dict.fromkeys(rule for s in samples for rule in s["scores"]))
    results = []
    for rule in rules:
        values = [s["scores"][rule]["value"] for s in samples if rule in s["scores"]]
        scored = [v for v in values if not math.isnan(v)]
        mean = sum(scored) / len(scored) if scored else math.nan
        results.append(
            {
                "name": rule,
                "scorer": rule,
                "scored_samples": len(scored),
                "unscored_samples": len(samples) - len(scored),
                "params": {},
                "metrics": {"mean": {"name": "mean", "value": mean, "params": {}}},
            }
        )
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "run_id": digest([task, method, created])[:22],
            "task_id": digest([task, method])[:22],
            "created": created,
            "task": task,
            "task_version": 0,
            "dataset": {"name": task, "samples": len(samples), "sample_ids": list(dict.fromkeys(s["id"] for s in samples))},
            "model": f"norma/{method}",
            "config": {"epochs": max(s["epoch"] for s in samples)},
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
        "results": {"total_samples": len(samples), "completed_samples": len(samples), "scores": results},
        "stats": {"started_at": created, "completed_at": created, "model_usage": {}},
        "samples": samples,
    }
