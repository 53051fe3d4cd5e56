"""The audit trail: every answer that was given out, with its verdicts, and what users said of it. SQLite, append-only.

    answer, verdicts ─add─→ committed to the disk ─→ only then the client gets the last of it          norma_answers, norma_feedback

What a client has seen whole is therefore in the file, whatever happens to the process then. ``text`` says what is kept of conversations:
``full``, ``redacted`` (personal data replaced by its kind) or ``none``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import JSON, Boolean, Column, Float, Integer, MetaData, String, Table, Text, create_engine, event, insert, select, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError

from norma.base.errors import NormaError
from norma.base.files import disk_errors
from norma.serve.redact import redacted, redacted_messages

Kept = Literal["full", "redacted", "none"]
metadata = MetaData()
ANSWERS = Table(
    "norma_answers",
    metadata,
    Column("answer", String(64), primary_key=True),  # the id that the client got
    Column("choice", Integer, primary_key=True),
    Column("created", Float, nullable=False),
    Column("key", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("spec_digest", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("messages", JSON, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("response", Text),  # what the model wrote; NULL where no text is kept
    Column("action", String(16), nullable=False),
    Column("tried", Integer, nullable=False),
    Column("reward", Float),
    Column("status", String(16), nullable=False),
    Column("verdicts", JSON, nullable=False),
    Column("consent", Boolean, nullable=False),
    Column("redacted", Boolean, nullable=False),
)
FEEDBACK = Table(
    "norma_feedback",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("answer", String(64), nullable=False, index=True),
    Column("choice", Integer, nullable=False),
    Column("created", Float, nullable=False),
    Column("key", Text, nullable=False),
    Column("rating", String(8), nullable=False),
    Column("rule", Text),
    Column("comment", Text),
    Column("corrected", Text),
)


@dataclass(frozen=True)
class Served:
    """One answer as the audit keeps it."""

    answer: str
    choice: int
    key: str
    model: str
    spec: str
    spec_digest: str
    language: str
    messages: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any]
    response: str | None
    action: str
    tried: int
    reward: float | None
    status: str
    verdicts: Sequence[Mapping[str, Any]]
    consent: bool
    redacted: bool = False


class Audit:
    """The audit file at ``path``. Safe from several threads: SQLite lets one write at a time."""

    def __init__(self, path: str | Path, kept: Kept = "redacted") -> None:
        self.path, self.kept = Path(path), kept
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = create_engine(URL.create("sqlite", database=str(self.path)))
        event.listen(self._engine, "connect", _prepare)
        try:
            with self._engine.begin() as connection:
                metadata.create_all(connection)
                for table in (ANSWERS, FEEDBACK):
                    for action in ("UPDATE", "DELETE"):
                        connection.execute(
                            text(
                                f"CREATE TRIGGER IF NOT EXISTS {table.name}_no_{action.lower()} BEFORE {action} ON {table.name} "
                                f"BEGIN SELECT RAISE(ABORT, '{table.name} is append-only'); END"
                            )
                        )
        except DatabaseError as error:
            raise NormaError(f"this cannot be the audit file ({error.orig})", where=self.path, mend="Give another path") from None

    def prepare(self, row: Served) -> Served:
        """``row`` with as much text as may be kept."""
        if self.kept == "full":
            return row
        values = {**row.__dict__}
        if self.kept == "none":
            values |= {"messages": [], "response": None}
        else:
            response = None if row.response is None else redacted(row.response)
            values |= {"messages": redacted_messages(row.messages), "response": response}
        changed = values["messages"] != [dict(m) for m in row.messages] or values["response"] != row.response
        if changed:  # places and quotations belong to the text that was
            values["verdicts"] = [{**v, "evidence": [], "note": redacted(v.get("note", ""))} for v in row.verdicts]
        return Served(**values | {"redacted": changed})

    def add(self, rows: Sequence[Served]) -> list[Served]:
        """Commit ``rows``; returns them as they are kept."""
        kept = [self.prepare(row) for row in rows]
        now = time.time()
        values = [{**row.__dict__, "messages": [dict(m) for m in row.messages], "created": now} for row in kept]
        with self._engine.begin() as connection:
            connection.execute(insert(ANSWERS), values)
        return kept

    def find(self, answer: str, choice: int = 0) -> Served | None:
        """A served answer, or None."""
        query = select(ANSWERS).where(ANSWERS.c.answer == answer, ANSWERS.c.choice == choice)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else Served(**{name: value for name, value in row.items() if name != "created"})

    def say(self, answer: str, choice: int, key: str, rating: str, rule: str | None, comment: str | None, corrected: str | None) -> int:
        """Commit one piece of feedback; returns its number."""
        if self.kept != "full":
            comment, corrected = (None if t is None or self.kept == "none" else redacted(t) for t in (comment, corrected))
        row = {"answer": answer, "choice": choice, "key": key, "rating": rating, "rule": rule, "comment": comment, "corrected": corrected}
        with self._engine.begin() as connection:
            done = connection.execute(insert(FEEDBACK).values(**row, created=time.time()))
            number = done.inserted_primary_key
        assert number is not None
        return int(number[0])

    def rows(self, table: Table = ANSWERS) -> list[dict[str, Any]]:
        """All rows of a table, the oldest first."""
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(table).order_by(table.c.created)).mappings()]

    def close(self) -> None:
        self._engine.dispose()


def _prepare(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA busy_timeout = 30000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")  # a commit is on the disk before it returns: power may fail too
    finally:
        cursor.close()
