"""What a benchmark says: rows, as a table and as JSON."""

from __future__ import annotations

import itertools
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
    the single rounds, as tokens per second. ``samples_per_s``: texts, pairs or answers, where the work counts them.
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
    samples_per_s: float | None = None


def show(rows: Sequence[Measured], console: Console) -> None:
    """A table for every piece of work."""
    for (work, setting), group in itertools.groupby(rows, key=lambda row: (row.work, row.setting)):
        table = Table(title=f"{work}, {setting}", title_justify="left")
        table.add_column("system")
        found = list(group)
        counted = found[0].samples_per_s is not None
        for column in (*(["samples/s"] if counted else []), "tokens/s", "lowest", "highest", "ratio", "peak MB", "loss"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in found:
            numbers = [f"{n:,.0f}" for n in (row.tokens_per_s, row.low, row.high)]
            numbers = [f"{row.samples_per_s:,.1f}", *numbers] if row.samples_per_s is not None else numbers
            table.add_row(Text(row.system), *numbers, f"{row.ratio:.2f}", f"{row.peak_mb:,.0f}", f"{row.loss:.4f}")
        console.print(table)


def write(rows: Sequence[Measured], path: Path) -> None:
    write_text(path, json.dumps([asdict(row) for row in rows], indent=2) + "\n")
