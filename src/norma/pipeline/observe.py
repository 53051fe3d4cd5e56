"""Who watches a run: the command line draws it, a notebook may count it, ``Quiet`` looks away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

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
    """Passes a stage's progress on, and keeps what it says in ``log.txt`` of its folder."""

    def __init__(self, inner: Progress, path: Path) -> None:
        self._inner, self._path = inner, path

    def update(self, step: int, total: int, **numbers: float) -> None:
        self._inner.update(step, total, **numbers)

    def say(self, text: str) -> None:
        self._inner.say(text)
        with self._path.open("a", encoding="utf-8") as handle:
            handle.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {text}\n")
