"""The judges' journal: every reply is on the disk before it is used, and none is paid for twice.

    key of a vote ─found─→ the reply that was journaled first
                  └absent─→ ask ─→ insert, committed ─→ the reply that stands there now (another process may have been first)

A reply that could not be read is kept with its cost, but not found again: the next run asks anew. SQLite, one table, append-only.
The journal holds rules, prompts and answers in clear text; keys of servers never reach it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from norma.base.errors import NormaError
from norma.base.files import disk_errors


@dataclass(frozen=True)
class Entry:
    """One reply. ``word``: yes, no or unsure; None: it could not be read. ``cost`` in dollars."""

    key: str
    judge: str
    request: str
    reply: str
    word: str | None
    cost: float


def default_place() -> Path:
    """``NORMA_JUDGE_JOURNAL``, or judge.sqlite in the user's cache folder."""
    named = os.environ.get("NORMA_JUDGE_JOURNAL")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "norma" / "judge.sqlite"


class Journal:
    """Replies in a file that several processes and threads may share."""

    def __init__(self, place: Path) -> None:
        with disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._connection = sqlite3.connect(place, timeout=30, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS replies (id INTEGER PRIMARY KEY, key TEXT NOT NULL, judge TEXT NOT NULL, request TEXT NOT NULL,"
                " reply TEXT NOT NULL, word TEXT, cost REAL NOT NULL, created REAL NOT NULL)"
            )
            self._connection.execute("CREATE INDEX IF NOT EXISTS replies_by_key ON replies (key)")
            self._connection.execute("CREATE INDEX IF NOT EXISTS replies_by_judge ON replies (judge)")
        except sqlite3.Error as error:
            raise NormaError(
                f"the judges' journal cannot be opened ({error})", where=place, mend="Name another file with 'journal:'"
            ) from None

    def find(self, key: str) -> str | None:
        """The reply that was journaled first for this vote, of those that could be read."""
        with self._lock:
            row = self._connection.execute(
                "SELECT reply FROM replies WHERE key = ? AND word IS NOT NULL ORDER BY id LIMIT 1", (key,)
            ).fetchone()
        return None if row is None else str(row[0])

    def add(self, entry: Entry) -> None:
        """Write a reply; it is on the disk when this returns."""
        values = (entry.key, entry.judge, entry.request, entry.reply, entry.word, entry.cost, time.time())
        with self._lock:
            self._connection.execute(
                "INSERT INTO replies (key, judge, request, reply, word, cost, created) VALUES (?, ?, ?, ?, ?, ?, ?)", values
            )

    def spent(self, judge: str) -> tuple[float, int]:
        """Dollars and calls of one judge so far, over all runs that used this journal."""
        with self._lock:
            row = self._connection.execute("SELECT COALESCE(SUM(cost), 0), COUNT(*) FROM replies WHERE judge = ?", (judge,)).fetchone()
        return float(row[0]), int(row[1])

    def close(self) -> None:
        with self._lock:
            self._connection.close()
