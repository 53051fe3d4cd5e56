"""The database of a studio: the label store's, with the studio's tables in it. SQLite by default, PostgreSQL by URL.

    place ─→ LabelStore (makes or upgrades its own tables) ─→ stamp an existing store ─→ Alembic up to the newest ─→ Database

Reading takes no lock. A writer takes the database's write lock before it reads what it decides on, so that two who submit at once
decide one after the other. SQLite's WAL with synchronous=FULL: what was committed survives kill -9 and a power cut.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event, inspect
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from norma.base.errors import NormaError
from norma.labels import LabelStore
from norma.labels.schema import lock, prepare_sqlite
from norma.studio.tables import AUDIT

FIRST = "0001"  # the revision that equals a label store without a studio


class Database:
    """Connections to one studio's tables; ``labels`` is the label store in the same database."""

    def __init__(self, place: str | Path) -> None:
        self.labels = LabelStore(place)
        self._engine: Engine = create_engine(self.labels.url)
        self.sqlite = self._engine.dialect.name == "sqlite"
        if self.sqlite:
            event.listen(self._engine, "connect", prepare_sqlite)
        with self.write() as connection:
            upgrade(connection)

    def close(self) -> None:
        self._engine.dispose()
        self.labels.close()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its beginning; committed when the block ends without an error."""
        try:
            with self._engine.connect() as connection:
                if self.sqlite:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                else:
                    lock(connection)
                yield connection
                connection.commit()
        except OperationalError as error:
            why = " ".join(str(error.orig).split())
            raise NormaError(f"the studio's database cannot be used ({why})", mend="Is another program holding it? Try again") from error

    def note(self, user: str, action: str, address: str = "", **detail: Any) -> None:
        """A line of the audit log, in a transaction of its own."""
        with self.write() as connection:
            audit(connection, user, action, address, **detail)


def audit(connection: Connection, user: str, action: str, address: str = "", **detail: Any) -> None:
    """A line of the audit log, in the caller's transaction."""
    connection.execute(AUDIT.insert().values(time=time.time(), user=user, address=address, action=action, detail=detail))


def upgrade(connection: Connection) -> None:
    """Bring the tables up to the newest revision, in the caller's transaction. Raises NormaError for a database of a newer Norma."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    now = MigrationContext.configure(connection).get_current_revision()
    known = ScriptDirectory.from_config(config)
    if now is not None and now not in {script.revision for script in known.walk_revisions()}:
        raise NormaError(f"this database has studio revision {now}, which this Norma does not know", mend="Use the newer Norma")
    if now == known.get_current_head():
        return
    if now is None and inspect(connection).has_table("labels"):
        command.stamp(config, FIRST)
    command.upgrade(config, "head")
