"""Ctrl-C and SIGTERM while the loop runs: the step is finished, a checkpoint written, and only then the signal is obeyed.

    signal ─→ asked ─→ the loop ends its step and saves ─→ handlers put back ─→ obey(): what the handler before would have done

A second signal does not wait: the handlers before are put back and get it at once. Outside the main thread nothing is done,
because Python lets only that one mind signals; whoever started the thread does.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class StopRequest:
    """A context manager; ``asked`` turns True when Ctrl-C or SIGTERM came within."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}
        self._installed: list[int] = []

    @property
    def asked(self) -> bool:
        return self.number is not None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before not in (signal.SIG_IGN, None):  # who ignores it on purpose (nohup) goes on doing so
                    self._before[number] = signal.signal(number, self._hear)
                    self._installed.append(number)
        return self

    def __exit__(self, *error: object) -> None:
        while self._installed:
            number = self._installed.pop()
            signal.signal(number, self._before[number])

    def obey(self) -> None:
        """Do what would have been done without us: raises KeyboardInterrupt, what the handler before raises, or SystemExit."""
        if self.number is None:
            return
        before = self._before[self.number]
        if callable(before):
            before(self.number, None)
        raise KeyboardInterrupt if self.number == signal.SIGINT else SystemExit(128 + self.number)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            return
        self.__exit__()
        signal.raise_signal(number)
