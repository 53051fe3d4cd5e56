"""The live view of a stage: a bar, and below it each number with the curve it has drawn so far.

    4/13 alternating ━━━━━━━━━━╸━━━━━━━━━ 412/900 0:12:03 left
      loss             4.331  █▆▅▄▃▃▂▂▂▁▁▁
        generative     4.102  █▆▅▄▃▃▂▂▂▁▁▁
      bits per byte    1.884  █▆▅▄▃▃▂▂▂▁▁▁
      gradient norm    0.418  ▂█▆▃▃▂▂▂▁▁▁▁
      tokens/s         15.5k  ▇▇█▇▇▇
      of the peak        41%  ▇▇█▇▇▇
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


def compact(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f}{letter}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


def reading(name: str, value: float) -> tuple[str, str]:
    """What a number is called and how it reads: ``("loss", "3.412")``, ``("tokens/s", "15.5k")``, ``("of the peak", "41%")``."""
    if name.endswith("_per_s"):
        return f"{name.removesuffix('_per_s').replace('_', ' ')}/s", compact(value)
    if name == "peak_share":
        return "of the peak", f"{100 * value:.2g}%"
    words = name.replace("_", " ")
    return words, compact(value) if abs(value) >= 1000 else format(value, ".3g" if abs(value) < 0.1 else ".3f")


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
            BarColumn(bar_width=WIDTH, complete_style="cyan", finished_style="cyan"),
            _Count(),
            _Left(),
            console=console,
            auto_refresh=False,
        )
        self._task: TaskID | None = None
        self._curves: dict[str, Curve] = {}
        self._shown: dict[str, tuple[str, str]] = {}
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

    def update(self, step: int, total: int, numbers: Mapping[str, float]) -> None:
        """A step is done, with these numbers."""
        if self._task is None:
            return
        self._bar.update(self._task, completed=step, total=total)
        for name, value in numbers.items():
            self._curves.setdefault(name, Curve()).add(value)
            self._shown[name] = reading(name, value)

    def _drawn(self) -> RenderableType:
        if self._task is None:
            return Text("")
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column(justify="right")
        table.add_column(style="cyan", no_wrap=True)
        for name, (words, value) in self._shown.items():
            whole, _, part = words.partition(".")  # loss.masked: a part of the loss that stands above
            label = f"    {part}" if part and whole in self._shown else f"  {words}"
            table.add_row(label, value, self._curves[name].drawn())
        return Group(Text(""), self._bar.get_renderable(), table)


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{int(task.completed):,}/{int(task.total):,}")


class _Left(TimeRemainingColumn):
    def render(self, task: Task) -> Text:
        left = super().render(task)
        return left.append(" left", style="dim") if task.speed else left
