"""What a benchmark says: rows, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from norma.base.files import write_text


@dataclass(frozen=True)
class Measured:
    """One system at one piece of work.

    ``ratio`` is its speed divided by that of the first system of the same work and setting; ``low`` and ``high`` are the extremes of
    the single rounds, as tokens per second.
    """

    system: str
    work: str
    setting: str
    tokens_per_s: float
    peak_mb: float
    ratio: float
    low: float
    high: float
    loss: float


def show(rows: Sequence[Measured], title: str, console: Console) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("work", "setting", "system"):
        table.add_column(column)
    for column in ("tokens/s", "lowest to highest", "ratio", "peak MB", "loss"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            Text(row.work), Text(row.setting), Text(row.system), f"{row.tokens_per_s:,.0f}", f"{row.low:,.0f} to {row.high:,.0f}",
            f"{row.ratio:.2f}", f"{row.peak_mb:,.0f}", f"{row.loss:.4f}",
        )
    console.print(table)


def write(rows: Sequence[Measured], path: Path) -> None:
    write_text(path, json.dumps([asdict(row) for row in rows], indent=2) + "\n")
