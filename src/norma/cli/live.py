"""The live view of a stage: a bar, and below it each number with the curve it has drawn so far.

4/13 generative ━━━━━━━━━━╸━━━━━━━━━ 412/900 0:12:03
  loss               4.331  █▆▅▄▃▃▂▂▂▁▁▁
  bits per byte      1.884  █▆▅▄▃▃▂▂▂▁▁▁
  gradient norm      0.418  ▂█▆▃▃▂▂▂▁▁▁▁
  15.5k tokens/s            ▇▇█▇▇▇
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 32  # characters of a curve


class Curve:
    """All values of a number in at most ``2 * WIDTH`` means: when they are full, neighbours are joined."""

    def __init__(self) -> None:
        self.means: list[float] = []
        self._each = 1  # values in a mean
        self._open: list[float] = []

    def add(self, value: float) -> None:
        if not math.isfinite(value):
            return
        self._open.append(value)
        if len(self._open) < self._each:
            return
        self.means.append(sum(self._open) / len(self._open))
        self._open = []
        if len(self.means) == 2 * WIDTH:
            self.means = [(a + b) / 2 for a, b in zip(self.means[::2], self.means[1::2], strict=True)]
            self._each *= 2

    def drawn(self) -> str:
        """The curve in block characters, its lowest value the lowest block."""
        values = self.means
        if len(values) > WIDTH:
            edges = [round(i * len(values) / WIDTH) for i in range(WIDTH + 1)]
            values = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
        if len(values) < 2:
            return ""
        low, high = min(values), max(values)
        span = high - low
        return "".join(BLOCKS[0 if span == 0 else min(7, int(8 * (value - low) / span))] for value in values)


class Board:
    """What stands below the lines that were said, while a stage runs."""

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            TextColumn("[bold]{task.description}[/]", markup=True),
            BarColumn(bar_width=WIDTH),
            _Count(),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
        )
        self._task: TaskID | None = None
        self._curves: dict[str, Curve] = {}
        self._shown: dict[str, str] = {}
        self._live = Live(console=console, get_renderable=self._drawn, refresh_per_second=4, transient=True)

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def open(self, name: str) -> None:
        """A stage begins."""
        self._task = self._bar.add_task(name, total=None)
        self._curves, self._shown = {}, {}

    def close(self) -> None:
        """A stage ends: nothing is left of it on the screen."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task, self._curves, self._shown = None, {}, {}
        self._live.refresh()  # else the next line is printed above the old view

    def update(self, step: int, total: int, numbers: Mapping[str, float], shown: Mapping[str, str]) -> None:
        """``shown`` is how each of the numbers reads."""
        if self._task is None:
            return
        self._bar.update(self._task, completed=step, total=total)
        for name, value in numbers.items():
            self._curves.setdefault(name, Curve()).add(value)
            self._shown[name] = shown[name]

    def _drawn(self) -> RenderableType:
        if self._task is None:
            return Text("")
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column(justify="right")
        table.add_column(style="cyan", no_wrap=True)
        for name, text in self._shown.items():
            words = name.removesuffix("_per_s").replace("_", " ")
            value = text.removeprefix(words).strip()
            table.add_row(f"  {'speed' if name.endswith('_per_s') else words}", value, self._curves[name].drawn())
        return Group(self._bar.get_renderable(), table)


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{int(task.completed):,}/{int(task.total):,}")
