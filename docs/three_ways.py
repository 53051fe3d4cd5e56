"""The table of recipes/three-ways.yaml for these pages: python docs/three_ways.py RUN [RUN ...]

RUN/report.json ───────────────┬─→ per spec and language: compliance and change against the base (95% interval, Holm's p), capability tax
RUN/evaluate/verdicts.jsonl ───┘   held-out compliance, which the report has for all languages together only

Rates are means over answers of the share of applicable rules that is kept, intervals are clustered by source. Holm's p corrects over
the methods and target rules of one language, the tax's over methods and measures. The tax is of text: one figure, whatever the language.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from norma.base.files import read_json, read_jsonl
from norma.evaluate.compliance import Judgements, overall_rate
from norma.evaluate.trials import is_main

HEAD = ("", "compliance, %", "held-out compliance, %", "against base, points", "p (Holm)", "capability tax, bits/byte")


def tables(run: Path) -> str:
    """The tables of one run, as Markdown."""
    report = read_json(run / "report.json")
    held = Judgements(row for row in read_jsonl(run / "evaluate" / "verdicts.jsonl") if row["role"] == "heldout" and is_main(row))
    parts = []
    for counted in report["data"]["languages"]:
        tag = counted["language"]
        parts += [f"{report['spec']['id']} {report['spec']['version']}, {tag}, {counted['questions']} questions", ""]
        parts += ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
        parts += ["| " + " | ".join(row(report, held, method, tag)) + " |" for method in report["methods"]]
        parts.append("")
    return "\n".join(parts)


def row(report: Mapping[str, Any], held: Judgements, method: Mapping[str, Any], tag: str) -> tuple[str, ...]:
    """The cells of one method in one language."""
    name = method["method"]
    kept = next(entry["overall"] for entry in method["languages"] if entry["language"] == tag)
    second = overall_rate(held.table(name, "heldout", tag), held.rules("heldout"), report["settings"]["confidence"])
    wanted = (name, tag, None, "report")
    change: Mapping[str, Any] = next((c for c in report["comparisons"] if (c["after"], c["language"], c["rule"], c["role"]) == wanted), {})
    tax: Mapping[str, Any] = next((t for t in report["tax"] if (t["method"], t["measure"]) == (name, "bits_per_byte")), {})
    return (
        method["label"]["en"],
        interval(kept["rate"], kept["low"], kept["high"], 100, ".1f"),
        interval(second.get("rate"), second.get("low"), second.get("high"), 100, ".1f"),
        interval(change.get("delta"), change.get("low"), change.get("high"), 100, "+.1f"),
        p_value(change.get("p_holm")),
        interval(tax.get("delta"), tax.get("low"), tax.get("high"), 1, "+.3f"),
    )


def interval(value: float | None, low: float | None, high: float | None, times: int, form: str) -> str:
    """``12.3 [11.0, 13.5]``; a dash where there is none."""
    if value is None or low is None or high is None:
        return "–"
    return f"{times * value:{form}} [{times * low:{form}}, {times * high:{form}}]"


def p_value(p: float | None) -> str:
    """Two digits, none made up below what a table needs."""
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, nargs="+")
    for run in parser.parse_args().run:
        print(tables(run))


if __name__ == "__main__":
    main()
