"""The label store: one append-only table on SQLAlchemy; SQLite by default, PostgreSQL by URL.

    add(labels)     one transaction; a key that is there already is left alone, so a kill and a second run double nothing
    rows(rule=...)  labels in the order of their keys (the same for every order in which they came)
    export(path)    a frozen copy as JSON lines and its digest: what corrections are trained from

SQLite runs in write-ahead mode: readers never wait, writers wait for each other. Updates and deletions are refused by the database itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, create_engine, event, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError
from sqlalchemy.schema import CreateIndex, CreateTable

from norma.base.errors import NormaError
from norma.base.files import disk_errors, read_jsonl, write_jsonl
from norma.base.hashing import digest
from norma.labels.rows import Label

_WAIT_SECONDS = 30  # for another writer's transaction
_BATCH = 500

_metadata = MetaData()
_labels = Table(
    "labels",
    _metadata,
    Column("key", String(64), primary_key=True),
    Column("item", Text, nullable=False),
    Column("response_hash", String(64), nullable=False),
    Column("response", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("rule_hash", String(64), nullable=False),
    Column("annotator", Text, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("source", String(16), nullable=False),
    Column("language", String(16), nullable=False),
    Column("score", Float),
    Column("spans", JSON, nullable=False),
    Column("corrected", Text),
    Column("rationale", Text, nullable=False),
    Column("checker", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("seconds", Float),
    Column("queue", Text, nullable=False),
    Column("inclusion_probability", Float),
    Column("guideline", Text, nullable=False),
    Column("gold", Boolean, nullable=False),
    Column("supersedes", String(64)),
    Column("created", Float, nullable=False),  # Unix seconds; stays out of rows and exports, so that equal marks give equal digests
)
_indexes = [
    Index("labels_by_rule", _labels.c.rule, _labels.c.annotator),
    Index("labels_by_item", _labels.c.item, _labels.c.response_hash),
    Index("labels_by_supersedes", _labels.c.supersedes),
]
_FIELDS = [column for column in _labels.c if column.name != "created"]


@dataclass(frozen=True)
class FrozenExport:
    """A copy of labels that will not change any more: what a training stage pins."""

    path: Path
    rows: int
    digest: str


class LabelStore:
    """Labels in a database. ``place`` is a path (SQLite; made if absent) or an SQLAlchemy URL. Usable as a context manager."""

    def __init__(self, place: str | Path) -> None:
        self.url = _url(place)
        if self.url.get_backend_name() == "sqlite" and self.url.database not in (None, "", ":memory:"):
            with disk_errors(Path(str(self.url.database))):
                Path(str(self.url.database)).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._engine: Engine = create_engine(self.url)
        except (NoSuchModuleError, ImportError) as error:
            raise NormaError(
                f"no driver for this database ({error})", where=self._shown, mend="Install its driver, or give a path"
            ) from None
        if self._engine.dialect.name not in ("sqlite", "postgresql"):
            raise NormaError(f"labels cannot be kept in {self._engine.dialect.name}", where=self._shown, mend="Use SQLite or PostgreSQL")
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)
        with self._transaction() as connection:
            connection.execute(CreateTable(_labels, if_not_exists=True))
            for index in _indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
            if self._engine.dialect.name == "sqlite":
                for action in ("UPDATE", "DELETE"):
                    connection.execute(
                        text(
                            f"CREATE TRIGGER IF NOT EXISTS labels_no_{action.lower()} BEFORE {action} ON labels "
                            "BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END"
                        )
                    )

    @property
    def _shown(self) -> str:
        return self.url.render_as_string(hide_password=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back; the store can be opened again at the same place."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            mend = "Another program may be writing; run the same command again" if "locked" in str(error.orig) else "Check the path or URL"
            raise NormaError(f"the label store cannot be used ({error.orig})", where=self._shown, mend=mend) from None
        except DatabaseError as error:
            if "not a database" in str(error.orig):
                raise NormaError("this file is not a label store", where=self._shown, mend="Give another path") from None
            raise

    def add(self, labels: Iterable[Label]) -> int:
        """Append labels in one transaction; returns how many were new. A key that is there already is left as it is.

        Raises NormaError, and adds nothing, when a person's mark contradicts the one that holds its key: that is a new revision.
        """
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        source, added = iter(labels), 0
        with self._transaction() as connection:
            batch = list(islice(source, _BATCH))
            while batch:
                # The first of equal keys stands, within a batch as in the table.
                values = {label.key: {**label.row(), "created": time.time()} for label in reversed(batch)}
                statement = insert(_labels).on_conflict_do_nothing(index_elements=["key"]).returning(_labels.c.key)
                new = {row.key for row in connection.execute(statement, list(values.values()))}
                added += len(new)
                _refuse_contradiction(connection, [label for label in batch if label.source == "human"])
                batch = list(islice(source, _BATCH))
        return added

    def rows(
        self,
        *,
        rule: str | None = None,
        rule_hash: str | None = None,
        annotator: str | None = None,
        source: str | None = None,
        item: str | None = None,
        verdict: str | None = None,
        current: bool = False,
    ) -> list[Label]:
        """The labels that fit, in the order of their keys. ``current``: without those that another row supersedes."""
        wanted = {"rule": rule, "rule_hash": rule_hash, "annotator": annotator, "source": source, "item": item, "verdict": verdict}
        query = select(*_FIELDS).order_by(_labels.c.key)
        for name, value in wanted.items():
            if value is not None:
                query = query.where(_labels.c[name] == value)
        if current:
            newer = _labels.alias("newer")
            query = query.where(~select(newer.c.key).where(newer.c.supersedes == _labels.c.key).exists())
        with self._transaction() as connection:
            return [Label.from_row(dict(row._mapping)) for row in connection.execute(query)]

    def count(self) -> int:
        """The number of labels."""
        with self._transaction() as connection:
            return int(connection.execute(select(func.count()).select_from(_labels)).scalar_one())

    def export(self, path: str | Path, **wanted: Any) -> FrozenExport:
        """Write the labels (those that fit ``rows(**wanted)``) as JSON lines; equal labels give equal bytes and an equal digest."""
        rows = [label.row() for label in self.rows(**wanted)]
        write_jsonl(Path(path), rows)
        return FrozenExport(Path(path), len(rows), export_digest(rows))

    def import_(self, path: str | Path) -> int:
        """Append the labels of a JSON-lines file; returns how many were new. All of the file is checked before anything is added."""
        rows = read_jsonl(Path(path))
        labels = []
        for number, row in enumerate(rows, 1):
            if not isinstance(row, dict):
                raise NormaError("not a label: a JSON object is expected", where=f"{path}, row {number}")
            labels.append(Label.from_row(row, where=f"{path}, row {number}"))
        return self.add(labels)


def _refuse_contradiction(connection: Connection, labels: list[Label]) -> None:
    query = select(_labels.c.key, _labels.c.verdict, _labels.c.corrected).where(_labels.c.key.in_([label.key for label in labels]))
    there = {row.key: row for row in connection.execute(query)}
    for label in labels:
        row = there[label.key]
        if (row.verdict, row.corrected) != (label.verdict, label.corrected):
            raise NormaError(
                f"{label.annotator} has already marked '{label.rule}' of item {label.item} as {row.verdict}",
                mend=f"Add the changed mark as revision {label.revision + 1} that supersedes {label.key}",
            )


def export_digest(rows: Iterable[dict[str, Any]]) -> str:
    """The digest of exported rows: independent of their order in the file."""
    return digest(sorted((json.loads(json.dumps(row)) for row in rows), key=lambda row: str(row["key"])))


def _url(place: str | Path) -> URL:
    if isinstance(place, str) and "://" in place:
        try:
            return make_url(place)
        except ArgumentError:
            raise NormaError(
                "not a database URL", where=place, mend="Give a path, or a URL such as postgresql+psycopg://host/name"
            ) from None
    return URL.create("sqlite", database=str(place))


def _prepare_sqlite(connection: Any, record: Any) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout = {_WAIT_SECONDS * 1000}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA foreign_keys = ON")
    finally:
        cursor.close()
