"""Choices made by measuring or by the clock, made once and frozen: micro-batch, compile, steps from a time budget.

A choice is on the disk (fsynced) before it is used, so that a killed run goes on with the same one and ends bit-identical.
``plan.json`` travels with the artefact for the reader, and stays out of digests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from norma.base.files import read_json, write_json
from norma.base.ranks import ALONE, Ranks

T = TypeVar("T")


class Plan:
    """The frozen choices of one stage, kept in ``plan.json`` of its work folder. Of several ranks the first chooses."""

    def __init__(self, folder: Path, ranks: Ranks = ALONE) -> None:
        self.path, self.ranks = folder / "plan.json", ranks
        self._values: dict[str, Any] = read_json(self.path) if self.path.exists() else {}

    def choose(self, key: str, measure: Callable[[], T]) -> T:
        """The value of ``measure()``, called only the first time; it must be JSON and come back equal from a file."""
        if not self.ranks.first:
            self._values[key] = self.ranks.tell(None)
        elif key not in self._values:
            values = {**self._values, key: measure()}
            write_json(self.path, values)
            # Read back, so that the first run sees exactly what a resumed one will see (tuples become lists).
            self._values = read_json(self.path)
        value: T = self._values[key]
        if self.ranks.first:
            self.ranks.tell(value)
        return value

    def change(self, key: str, value: Any) -> None:
        """Choose anew, where the first choice turned out impossible (too little memory); on the disk before it is used."""
        write_json(self.path, {**self._values, key: value})
        self._values = read_json(self.path)

    def __contains__(self, key: str) -> bool:
        return key in self._values
