"""The tables of a label store, who keeps them append-only, and how an older store becomes a newer one.

    labels   one mark a row                          items    the inputs that marks are of
    draws    what a queue showed, and how likely     schema_versions   which steps of ``STEPS`` this store has seen

Nothing here is ever updated or deleted: triggers in the database refuse it, whoever asks. A step only adds; steps are idempotent, so that
two programs may open an old store at once. A store of a newer Norma is refused by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, func, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex, CreateTable

from norma.base.errors import NormaError

metadata = MetaData()
LABELS = Table(
    "labels",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("item", Text, nullable=False),
    Column("response_hash", String(64), nullable=False),
    Column("response", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("rule_hash", String(64), nullable=False),
    Column("annotator", Text, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("source", String(16), nullable=False),
    Column("language", Text, nullable=False),
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
ITEMS = Table(
    "items",
    metadata,
    Column("item", Text, primary_key=True),
    Column("digest", String(64), nullable=False),  # of all that follows: an item that changed is another item
    Column("messages", JSON, nullable=False),
    Column("language", Text, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("reference", Text),
    Column("created", Float, nullable=False),
)
DRAWS = Table(
    "draws",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("draw", String(64), nullable=False),  # which draw: a digest of seed, candidates and shares
    Column("place", Integer, nullable=False),  # the order of showing
    Column("item", Text, nullable=False),
    Column("response_hash", String(64), nullable=False),
    Column("response", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("rule_hash", String(64), nullable=False),
    Column("language", Text, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("inclusion_probability", Float),
    Column("created", Float, nullable=False),
)
_VERSIONS = Table("schema_versions", metadata, Column("version", Integer, primary_key=True), Column("created", Float, nullable=False))
_INDEXES = {
    LABELS: [
        Index("labels_by_rule", LABELS.c.rule, LABELS.c.annotator),
        Index("labels_by_item", LABELS.c.item, LABELS.c.response_hash),
        Index("labels_by_supersedes", LABELS.c.supersedes),
    ],
    ITEMS: [],
    DRAWS: [Index("draws_by_queue", DRAWS.c.queue)],
    _VERSIONS: [],
}
_WAIT_SECONDS = 30  # for another writer's transaction
_LOCK = 0x6E6F726D61  # "norma": the advisory lock of writers on PostgreSQL


def lock(connection: Connection) -> None:
    """One writer at a time, as in SQLite: two that insert the same keys in different orders would else wait for each other for ever."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def prepare_sqlite(connection: Any, record: Any) -> None:
    """What every connection to an SQLite store is set to: readers never wait, a commit is on the disk when it returns."""
    cursor = connection.cursor()
    try:
        for setting in (f"busy_timeout = {_WAIT_SECONDS * 1000}", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {setting}")
    finally:
        cursor.close()


def prepare(connection: Connection) -> None:
    """Bring a new or older store up to date, in the caller's transaction. Raises NormaError for a store of a newer Norma."""
    version = _version(connection)
    if version > len(STEPS):
        raise NormaError(f"this label store has schema {version}, and this Norma knows {len(STEPS)}", mend="Use the newer Norma")
    if version == len(STEPS):
        return
    lock(connection)
    _create(connection, _VERSIONS)
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    for number, step in enumerate(STEPS[version:], version + 1):
        step(connection)
        connection.execute(insert(_VERSIONS).values(version=number, created=time.time()).on_conflict_do_nothing())


def _version(connection: Connection) -> int:
    if not inspect(connection).has_table(_VERSIONS.name):
        return 0
    return int(connection.execute(select(func.max(_VERSIONS.c.version))).scalar_one() or 0)


def _create(connection: Connection, *tables: Table) -> None:
    for table in tables:
        connection.execute(CreateTable(table, if_not_exists=True))
        for index in _INDEXES[table]:
            connection.execute(CreateIndex(index, if_not_exists=True))
        keep = _keep_on_postgresql if connection.dialect.name == "postgresql" else _keep_on_sqlite
        for statement in keep(table):
            connection.execute(text(statement))


def _keep_on_sqlite(table: Table) -> list[str]:
    name, key = table.name, next(iter(table.primary_key)).name
    refused = [
        f"CREATE TRIGGER IF NOT EXISTS {name}_no_{action.lower()} BEFORE {action} ON {name} "
        f"BEGIN SELECT RAISE(ABORT, '{name} are append-only'); END"
        for action in ("UPDATE", "DELETE")
    ]
    # INSERT OR REPLACE deletes without asking a deletion's trigger: a key that is there is passed over before it comes to that.
    passed = (
        f"CREATE TRIGGER IF NOT EXISTS {name}_no_replace BEFORE INSERT ON {name} "
        f"WHEN EXISTS (SELECT 1 FROM {name} WHERE {key} = NEW.{key}) BEGIN SELECT RAISE(IGNORE); END"
    )
    return [*refused, passed]


def _keep_on_postgresql(table: Table) -> list[str]:
    name = table.name
    return [
        "CREATE OR REPLACE FUNCTION norma_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% are append-only', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation'; END $$",
        f"DROP TRIGGER IF EXISTS {name}_append_only ON {name}",
        f"CREATE TRIGGER {name}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {name} "
        "FOR EACH STATEMENT EXECUTE FUNCTION norma_append_only()",
    ]


# Step n makes schema n of schema n - 1. Stores from before there were numbers hold the labels table and pass through all of them.
STEPS: tuple[Callable[[Connection], None], ...] = (
    lambda connection: _create(connection, LABELS),
    lambda connection: _create(connection, ITEMS, DRAWS),
)
