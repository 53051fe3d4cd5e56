"""Numbers that were measured survive a kill: JSON lines of a key and a value, fsynced batch by batch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from norma.base.files import disk_errors, to_json

T = TypeVar("T")


class Kept:
    """A file of what was measured. A line that a kill cut is dropped on opening."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Any] = {}
        whole = 0
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                for line in path.read_bytes().splitlines(keepends=True):
                    try:
                        row = json.loads(line) if line.endswith(b"\n") else None
                        self.known[row["key"]] = row["value"]  # type: ignore[index]
                    except (ValueError, KeyError, TypeError):
                        break
                    whole += len(line)
            self._handle: IO[bytes] = path.open("ab")
            self._handle.truncate(whole)

    def measured(
        self,
        keys: Sequence[str],
        items: Sequence[T],
        measure: Callable[[Sequence[T]], Sequence[Any]],
        *,
        batch: int = 32,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Any]:
        """The value of every item: from the file, or measured, written, and only then used."""
        first = {key: i for i, key in reversed(list(enumerate(keys)))}  # what is asked twice is measured once
        left = sorted(i for key, i in first.items() if key not in self.known)
        for start in range(0, len(left), batch):
            part = left[start : start + batch]
            for i, value in zip(part, measure([items[i] for i in part]), strict=True):
                self.known[keys[i]] = value
                with disk_errors(self.path):
                    self._handle.write(to_json({"key": keys[i], "value": value}).encode() + b"\n")
            with disk_errors(self.path):
                self._handle.flush()
                os.fsync(self._handle.fileno())
            progress(len(first) - len(left) + start + len(part), len(first))
        return [self.known[key] for key in keys]

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.close()
