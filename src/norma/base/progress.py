"""How long work tells what it is doing. Rooms report to a ``Progress``; the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives what happens during a stage. Implementations must be cheap: ``update`` is called once a step."""

    def update(self, step: int, total: int, **numbers: float) -> None:
        """``numbers`` are shown by name: ``loss`` (nats a token), ``tokens_per_s``, ``reward``, ``kl``, ..."""

    def say(self, text: str) -> None:
        """One line of text (Rich markup is allowed) that stays on the screen and in the log."""


class Silent:
    """Reports nothing."""

    def update(self, step: int, total: int, **numbers: float) -> None:
        pass

    def say(self, text: str) -> None:
        pass
