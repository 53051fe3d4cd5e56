"""How a run looks while it runs: a live view on a terminal, a line every few seconds elsewhere.

on a terminal: norma.cli.live     elsewhere: 3/9 pretrain  412/1,000  loss 3.412  15.5k tokens/s  0:03:12 left
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.errors import MarkupError
from rich.markup import escape

from norma.cli.live import Board, reading

_PLAIN_SECONDS = 5.0


def number(name: str, value: float) -> str:
    """``loss 3.412``, ``15.5k tokens/s``: a number as people read it."""
    words, text = reading(name, value)
    return f"{text} {words}" if name.endswith("_per_s") or name == "peak_share" else f"{words} {text}"


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
        self._board = Board(console) if console.is_terminal else None
        self._said = self._began = time.monotonic()
        self._first_step: int | None = None

    def __enter__(self) -> Watch:
        if self._board:
            self._board.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._board:
            self._board.close()
            self._board.stop()

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
        if self._board:
            self._board.open(self._place(stage))

    def update(self, step: int, total: int, **numbers: float) -> None:
        if self._board:
            self._board.update(step, total, numbers)
            return
        now = time.monotonic()
        if self._first_step is None:
            self._first_step, self._began = step, now
        if now - self._said >= _PLAIN_SECONDS:
            self._said = now
            made = step - self._first_step
            left = f"  {duration((now - self._began) / made * (total - step))} left" if made > 0 else ""
            facts = "  ".join(number(name, value) for name, value in numbers.items())
            self._print(f"{self._place(self._stage)}  {step:,}/{total:,}  {facts}{left}", markup=False)

    def say(self, text: str) -> None:
        self._print(text)

    def finish(self, stage: str, seconds: float, summary: dict[str, Any]) -> None:
        if self._board:
            self._board.close()
        facts = "  ".join(_fact(k, v) for k, v in summary.items() if isinstance(v, (int, float)) and not isinstance(v, bool))
        self._print(f"[green]{self._place(stage)} done[/] in {duration(seconds)}" + (f"  [dim]{escape(facts)}[/]" if facts else ""))

    def _place(self, stage: str) -> str:
        position = self._stages.index(stage) + 1 if stage in self._stages else 0
        return f"{position}/{len(self._stages)} {stage}"

    def _print(self, text: str, markup: bool = True) -> None:
        try:
            self._console.print(text, markup=markup, highlight=False, soft_wrap=True)
        except MarkupError:  # a stage said something with brackets that are not markup
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _fact(name: str, value: float) -> str:
    return f"{name.replace('_', ' ')} {value:,}" if isinstance(value, int) else number(name, value)
