"""The label store: append-only tables on SQLAlchemy (``schema``); SQLite by default, PostgreSQL by URL.

    add(labels)     one transaction; a key that is there already is left alone, so a kill and a second run double nothing
    add_items, add_draws   the same for the inputs that were marked, and for what a queue showed
    rows(rule=...)  labels in the order of their keys (the same for every order in which they came)
    export(path)    a frozen copy as JSON lines and its digest: what corrections are trained from

SQLite runs in write-ahead mode: readers never wait, writers wait for each other; on PostgreSQL an advisory lock makes writers wait too.
Updates and deletions are refused by the database itself.
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

from sqlalchemy import Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, NoSuchModuleError, OperationalError

from norma.base.errors import NormaError
from norma.base.files import disk_errors, read_jsonl, write_jsonl
from norma.base.hashing import digest
from norma.labels.queues import Drawn
from norma.labels.rows import Label
from norma.labels.schema import DRAWS, ITEMS, LABELS, lock, prepare, prepare_sqlite
from norma.spec.types import Item

_BATCH = 500
_FIELDS = [column for column in LABELS.c if column.name != "created"]


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
            mend = "Install norma-lm[postgres]" if "postgres" in self.url.drivername else "Install its driver, or give a path"
            raise NormaError(f"no driver for this database ({error})", where=self._shown, mend=mend) from None
        if self._engine.dialect.name not in ("sqlite", "postgresql"):
            raise NormaError(f"labels cannot be kept in {self._engine.dialect.name}", where=self._shown, mend="Use SQLite or PostgreSQL")
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", prepare_sqlite)
        with self._transaction() as connection:
            prepare(connection)

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
            why = " ".join(str(error.orig).split())
            mend = "Another program may be writing; run the same command again" if "locked" in why else "Check the path or URL"
            raise NormaError(f"the label store cannot be used ({why})", where=self._shown, mend=mend) from None
        except (DataError, UnicodeEncodeError) as error:
            why = "half a character" if isinstance(error, UnicodeEncodeError) else " ".join(str(error.orig).split())
            raise NormaError(f"the database cannot keep a value ({why})", where=self._shown, mend="Mend or leave out that mark") from error
        except DatabaseError as error:
            if "not a database" in str(error.orig):
                raise NormaError("this file is not a label store", where=self._shown, mend="Give another path") from None
            raise
        except NormaError as error:
            raise NormaError(error.what, where=error.where or self._shown, mend=error.mend) from error

    def _insert(self, connection: Connection, table: Table, rows: dict[str, dict[str, Any]]) -> int:
        """Insert or ignore ``rows`` (by primary key); returns how many were new."""
        insert = postgresql.insert if self._engine.dialect.name == "postgresql" else sqlite.insert
        statement = insert(table).on_conflict_do_nothing().returning(*table.primary_key)
        now = time.time()
        return len(connection.execute(statement, [{**row, "created": now} for row in rows.values()]).all()) if rows else 0

    def add(self, labels: Iterable[Label]) -> int:
        """Append labels in one transaction; returns how many were new. A key that is there already is left as it is.

        Raises NormaError, and adds nothing, when a person's mark contradicts the one that holds its key: that is a new revision.
        """
        source, added = iter(labels), 0
        with self._transaction() as connection:
            lock(connection)
            while batch := list(islice(source, _BATCH)):
                # The first of equal keys stands, within a batch as in the table.
                rows = {label.key: label.row() for label in reversed(batch)}
                added += self._insert(connection, LABELS, rows)
                _refuse_contradiction(connection, [label for label in batch if label.source == "human"])
        return added

    def add_items(self, items: Iterable[Item]) -> int:
        """Append the inputs that marks are of; returns how many were new. Raises NormaError when an id has come to mean another input."""
        source, added = iter(items), 0
        with self._transaction() as connection:
            lock(connection)
            while batch := list(islice(source, _BATCH)):
                rows = {row["item"]: row for row in map(_item_row, reversed(batch))}
                added += self._insert(connection, ITEMS, rows)
                query = select(ITEMS.c.item, ITEMS.c.digest).where(ITEMS.c.item.in_(list(rows)))
                there = {row.item: row.digest for row in connection.execute(query)}
                for item in map(_item_row, batch):
                    if there[item["item"]] != item["digest"]:
                        raise NormaError(f"item {item['item']} is already there with other contents", mend="Give the new input another id")
        return added

    def items(self) -> dict[str, Item]:
        """{id: input} of all that were added, in the order of their ids."""
        with self._transaction() as connection:
            return {
                row.item: Item(row.item, tuple(row.messages), row.language, row.facts, row.cluster, row.reference)
                for row in connection.execute(select(ITEMS).order_by(ITEMS.c.item))
            }

    def add_draws(self, draws: Iterable[Drawn]) -> int:
        """Append what a queue showed; returns how many were new. The audit stream's estimate rests on these rows."""
        source, added = iter(draws), 0
        with self._transaction() as connection:
            lock(connection)
            while batch := list(islice(source, _BATCH)):
                added += self._insert(connection, DRAWS, {drawn.key: drawn.row() for drawn in batch})
        return added

    def draws(self, queue: str | None = None, rule: str | None = None) -> list[Drawn]:
        """What queues showed, in the order of draws and places."""
        query = select(*(c for c in DRAWS.c if c.name not in ("created", "key", "response_hash")))
        for column, value in ((DRAWS.c.queue, queue), (DRAWS.c.rule, rule)):
            if value is not None:
                query = query.where(column == value)
        with self._transaction() as connection:
            return [Drawn(**row._mapping) for row in connection.execute(query.order_by(DRAWS.c.created, DRAWS.c.draw, DRAWS.c.place))]

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
        query = select(*_FIELDS).order_by(LABELS.c.key)
        for name, value in wanted.items():
            if value is not None:
                query = query.where(LABELS.c[name] == value)
        if current:
            newer = LABELS.alias("newer")
            query = query.where(~select(newer.c.key).where(newer.c.supersedes == LABELS.c.key).exists())
        with self._transaction() as connection:
            return [Label.from_row(dict(row._mapping)) for row in connection.execute(query)]

    def count(self) -> int:
        """The number of labels."""
        with self._transaction() as connection:
            return int(connection.execute(select(func.count()).select_from(LABELS)).scalar_one())

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
    query = select(LABELS.c.key, LABELS.c.verdict, LABELS.c.corrected).where(LABELS.c.key.in_([label.key for label in labels]))
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


def _item_row(item: Item) -> dict[str, Any]:
    row = {
        "item": item.id,
        "messages": [dict(m) for m in item.messages],
        "language": item.language,
        "cluster": item.cluster,
        "facts": dict(item.facts),
        "reference": item.reference,
    }
    return {**row, "digest": digest(row)}


def _url(place: str | Path) -> URL:
    if isinstance(place, str) and "://" in place:
        try:
            url = make_url(place)
            # People write postgres:// or postgresql://, which SQLAlchemy before 2.1 takes for another driver.
            return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgres", "postgresql") else url
        except ArgumentError:
            raise NormaError(
                "not a database URL", where=place, mend="Give a path, or a URL such as postgresql+psycopg://host/name"
            ) from None
    return URL.create("sqlite", database=str(place))
