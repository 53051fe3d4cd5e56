"""Who watches a run: the command line draws it, a notebook may count it, ``Quiet`` looks away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from rich.markup import escape

from norma.align.alarms import Lookout
from norma.base.files import read_jsonl
from norma.base.progress import Progress, Silent


class Observer(Progress, Protocol):
    """A ``Progress`` that also hears of stages. Calls come in order: begin, then skip or start ... finish per stage."""

    def begin(self, stages: Sequence[str], folder: Path) -> None:
        """The run starts; ``stages`` in running order."""

    def skip(self, stage: str) -> None:
        """The stage's artefact is up to date."""

    def start(self, stage: str, kind: str, reasons: Sequence[str], resumed: bool) -> None:
        """The stage begins, and why; ``resumed`` when it goes on from unfinished work."""

    def finish(self, stage: str, seconds: float, summary: dict[str, Any]) -> None:
        """The stage's artefact is in its place."""


class Quiet(Silent):
    """Watches nothing."""

    def begin(self, stages: Sequence[str], folder: Path) -> None:
        pass

    def skip(self, stage: str) -> None:
        pass

    def start(self, stage: str, kind: str, reasons: Sequence[str], resumed: bool) -> None:
        pass

    def finish(self, stage: str, seconds: float, summary: dict[str, Any]) -> None:
        pass


class Logged:
    """Passes a stage's progress on, keeps what it says in ``log.txt`` of its folder, and says when training goes wrong, once each."""

    def __init__(self, inner: Progress, path: Path) -> None:
        self._inner, self._path = inner, path
        self._lookout: Lookout | None = None

    def update(self, step: int, total: int, **numbers: float) -> None:
        self._inner.update(step, total, **numbers)
        if self._lookout is None:
            self._lookout = Lookout()
            for row in _rows_before(self._path.parent / "metrics.jsonl", step - 1):  # a resumed run does not say again what it has said
                self._lookout.add(row)
        for alarm in self._lookout.add({**numbers, "step": step - 1}):
            self.say(f"[yellow]step {alarm.step:,}:[/] {escape(alarm.en)}")

    def say(self, text: str) -> None:
        self._inner.say(text)
        with self._path.open("a", encoding="utf-8") as handle:
            handle.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {text}\n")


def _rows_before(path: Path, step: int) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl of steps before ``step``; none where the stage writes no such file."""
    return [row for row in read_jsonl(path) if row.get("step", step) < step] if path.is_file() else []
