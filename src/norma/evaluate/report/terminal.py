"""The report's main table for the terminal. Cells are plain text: rule and method names cannot smuggle markup in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from norma.evaluate.report.figures import p_value, percent, points


def _plain_table(title: str) -> Table:
    return Table(title=Text(title), title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def terminal_table(report: Mapping[str, Any]) -> Table:
    """One row a method: overall compliance, change against the baseline with Holm's p, chrF and bits per byte where measured."""
    settings = report["settings"]
    level = f"{settings['confidence']:.0%}"
    questions = next((q for q in report["quality"] if q["set"] == "questions"), None)
    chrf = {row["method"]: row["without_opening"]["chrf"] for row in questions["methods"]} if questions else {}
    has_bits = any(m["bits_per_byte"] is not None for m in report["methods"])
    table = _plain_table(
        f"{report['spec']['id']} {report['spec']['version']}: compliance, {level} intervals, change in points vs {settings['baseline']}"
    )
    table.add_column("method", no_wrap=True)
    table.add_column("overall %", justify="right", no_wrap=True)
    table.add_column("change", justify="right", no_wrap=True)
    table.add_column("p Holm", justify="right", no_wrap=True)
    if chrf:
        table.add_column("chrF", justify="right", no_wrap=True)
    if has_bits:
        table.add_column("bits/B", justify="right", no_wrap=True)
    for method in report["methods"]:
        name, overall = method["method"], method["overall"]
        change = next(
            (c for c in report["comparisons"] if c["family"] == "overall" and c["after"] == name and c["before"] == settings["baseline"]),
            None,
        )
        sure = change is not None and change["low"] is not None and (change["low"] > 0 or change["high"] < 0)
        cells = [
            Text(name),
            Text(f"{percent(overall['rate'], unit=False)} [{percent(overall['low'], unit=False)}, {percent(overall['high'], unit=False)}]"),
            Text(
                "" if change is None else f"{points(change['delta'])} [{points(change['low'])}, {points(change['high'])}]",
                style=("green" if change is not None and change["delta"] > 0 else "red") if sure else "",
            ),
            Text("" if change is None else p_value(change["p_holm"])),
        ]
        if chrf:
            cells.append(Text("" if chrf.get(name) is None else f"{chrf[name]:.1f}"))
        if has_bits:
            cells.append(Text("" if method["bits_per_byte"] is None else f"{method['bits_per_byte']:.3f}"))
        table.add_row(*cells)
    if questions and questions["baseline"]["raw"]["chrf"] is not None:
        table.caption = Text(
            f"chrF without the polite opening; always the most frequent summary gives {questions['baseline']['raw']['chrf']:.1f}"
        )
    return table


def rules_table(report: Mapping[str, Any]) -> Table:
    """One row a rule, one column a method: the rate in percent; '<' marks a rate below the target."""
    table = _plain_table("compliance per rule, %; < marks a rate below the target")
    table.add_column("rule", no_wrap=True)
    table.add_column("target", justify="right", no_wrap=True)
    for method in report["methods"]:
        table.add_column(Text(method["method"]), justify="right", overflow="fold")
    for card in report["spec"]["rules"]:
        cells = [Text(card["rule"]), Text("" if card["target"] is None else percent(card["target"], unit=False, digits=0))]
        for method in report["methods"]:
            row = next((r for r in method["rules"] if r["rule"] == card["rule"]), None)
            if row is None or row["rate"] is None:
                cells.append(Text("-"))
                continue
            below = card["target"] is not None and row["rate"] < card["target"]
            cells.append(Text(("<" if below else "") + percent(row["rate"], unit=False), style="red" if below else ""))
        table.add_row(*cells)
    return table
