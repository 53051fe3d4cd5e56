"""Results as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def shown(value: float, unit: str) -> str:
    """A score as people read it: shares in per cent."""
    if unit == "share":
        return f"{100 * value:.1f}"
    return f"{value:.3f}" if unit == "bits" else f"{value:.1f}" if abs(value) < 1e5 else f"{value:.2g}"


def heading(score: str, unit: str) -> str:
    """What is counted: ``accuracy, %``."""
    return f"{score.replace('_', ' ')}{', %' if unit == 'share' else ''}"


def results_table(results: Mapping[str, Any]) -> Any:
    """One line a task, number of examples and score."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(results["model"]), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("task", "shots", "score"):
        table.add_column(name, justify="right" if name == "shots" else "left")
    for name in ("", "95% interval", "rows"):
        table.add_column(name, justify="right", no_wrap=True)
    for task in results["tasks"]:
        for place, s in enumerate(task["scores"]):
            span = f"{shown(s['low'], s['unit'])} – {shown(s['high'], s['unit'])}"
            first = (task["task"], str(task["shots"])) if not place else ("", "")
            cells = (*first, heading(s["score"], s["unit"]), shown(s["value"], s["unit"]), span, str(s["n"]) if not place else "")
            table.add_row(*map(Text, cells))
    return table
