"""How a run looks while it runs: a live bar on a terminal, a line every few seconds elsewhere.

3/9 pretrain ━━━━━━━━━━╸━━━━━  412/1,000  loss 3.412  15.5k tokens/s  0:03:12
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.errors import MarkupError
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

_PLAIN_SECONDS = 5.0


def number(name: str, value: float) -> str:
    """``loss 3.412``, ``15.5k tokens/s``: a number as people read it."""
    if name.endswith("_per_s"):
        return f"{compact(value)} {name.removesuffix('_per_s').replace('_', ' ')}/s"
    return f"{name.replace('_', ' ')} {compact(value) if abs(value) >= 1000 else format(value, '.3g' if abs(value) < 0.1 else '.3f')}"


def compact(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f}{letter}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


def duration(seconds: float) -> str:
    """``0:04:32``, ``12.3 s``: how long something took."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Watch:
    """An ``Observer`` that draws on a console: what it says stays, the bar moves below it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stages: list[str] = []
        self._stage = ""
        self._bar = _bar(console) if console.is_terminal else None
        self._task: TaskID | None = None
        self._said = self._began = time.monotonic()
        self._first_step: int | None = None

    def __enter__(self) -> Watch:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar:
            self._drop()
            self._bar.stop()

    def begin(self, stages: Sequence[str], folder: Path) -> None:
        self._stages = list(stages)
        self._print(f"Run folder: {escape(str(folder))}")

    def skip(self, stage: str) -> None:
        self._print(f"[dim]{self._place(stage)} up to date[/]")

    def start(self, stage: str, kind: str, reasons: Sequence[str], resumed: bool) -> None:
        self._stage, self._began, self._first_step = stage, time.monotonic(), None
        self._said = self._began
        why = "goes on where it stopped" if resumed else "; ".join(reasons[:2]) + (" ..." if len(reasons) > 2 else "")
        self._print(f"[bold]{self._place(stage)}[/]" + (f" [dim]({escape(why)})[/]" if why else ""))
        if self._bar:
            self._task = self._bar.add_task(self._place(stage), total=None, numbers="")

    def update(self, step: int, total: int, **numbers: float) -> None:
        shown = "  ".join(number(name, value) for name, value in numbers.items())
        if self._bar:
            if self._task is not None:
                self._bar.update(self._task, completed=step, total=total, numbers=shown)
            return
        now = time.monotonic()
        if self._first_step is None:
            self._first_step, self._began = step, now
        if now - self._said >= _PLAIN_SECONDS:
            self._said = now
            made = step - self._first_step
            left = f"  {duration((now - self._began) / made * (total - step))} left" if made > 0 else ""
            self._print(f"{self._place(self._stage)}  {step:,}/{total:,}  {shown}{left}", markup=False)

    def say(self, text: str) -> None:
        self._print(text)

    def finish(self, stage: str, seconds: float, summary: dict[str, Any]) -> None:
        self._drop()
        facts = "  ".join(_fact(k, v) for k, v in summary.items() if isinstance(v, (int, float)) and not isinstance(v, bool))
        self._print(f"[green]{self._place(stage)} done[/] in {duration(seconds)}" + (f"  [dim]{escape(facts)}[/]" if facts else ""))

    def _place(self, stage: str) -> str:
        position = self._stages.index(stage) + 1 if stage in self._stages else 0
        return f"{position}/{len(self._stages)} {stage}"

    def _drop(self) -> None:
        if self._bar and self._task is not None:
            self._bar.remove_task(self._task)
            self._bar.refresh()  # else the next line is printed above the old bar
        self._task = None

    def _print(self, text: str, markup: bool = True) -> None:
        try:
            self._console.print(text, markup=markup, highlight=False, soft_wrap=True)
        except MarkupError:  # a stage said something with brackets that are not markup
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _fact(name: str, value: float) -> str:
    return f"{name.replace('_', ' ')} {value:,}" if isinstance(value, int) else number(name, value)


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{int(task.completed):,}/{int(task.total):,}")


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}[/]", markup=True),
        BarColumn(bar_width=24),
        _Count(),
        TextColumn("{task.fields[numbers]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        refresh_per_second=4,
    )
