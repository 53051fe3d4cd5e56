"""Rows that could not be used, set aside with the place and the reason, so that the rest can be."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from norma.base.files import atomic_writer


class Quarantine:
    """Counts unusable rows and, given a path, writes them as JSON lines ``{"file", "line", "reason"}``.

    Use as a context manager; the file is written even when it stays empty, and only when the block ends without an error.
    ``line`` is 1-based; 0 stands for the whole file.
    """

    SHOWN = 20  # rows kept in memory to be shown

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.reasons: Counter[str] = Counter()
        self.first: list[tuple[str, int, str]] = []
        self._stack = ExitStack()
        self._handle: IO[Any] | None = None

    def __enter__(self) -> Quarantine:
        if self.path is not None:
            self._handle = self._stack.enter_context(atomic_writer(self.path))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._handle = None
        self._stack.__exit__(kind, error, trace)

    def add(self, file: str, line: int, reason: str) -> None:
        """Set one row aside."""
        reason = " ".join(reason.split())
        self.reasons[reason.split(" (")[0]] += 1
        if len(self.first) < self.SHOWN:
            self.first.append((file, line, reason))
        if self._handle is not None:
            # Undecodable bytes live on as surrogates in names; JSON files must be UTF-8.
            row = {"file": file.encode("utf-8", "replace").decode(), "line": line, "reason": reason.encode("utf-8", "replace").decode()}
            self._handle.write(json.dumps(row, ensure_ascii=False) + "\n")

    def __len__(self) -> int:
        return sum(self.reasons.values())
