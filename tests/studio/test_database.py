"""Migrations: a new database, a label store from before there was a studio, one of a newer Norma. On SQLite and PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from norma.base.errors import NormaError
from norma.labels import Label, LabelStore
from norma.studio import tables
from norma.studio.database import Database


def mark(item: str) -> Label:
    return Label(item, "Yes.", "style.polite", "f" * 64, "ann", "compliant")


def revision(database: Database) -> str:
    with database.read() as connection:
        return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


def test_a_new_database_gets_every_table_and_opening_it_again_changes_nothing(place: str) -> None:
    for _ in range(2):
        database = Database(place)
        with database.read() as connection:
            assert set(inspect(connection).get_table_names()) >= {"labels", "items", "draws", *tables.metadata.tables}
        assert revision(database) == "0003"
        database.close()


def test_the_migrations_make_just_the_tables_that_the_code_knows(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    database = Database(tmp_path / "labels.sqlite")
    with database.read() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_object": lambda o, name, kind, *_: (
                    name.startswith("studio_tasks") or kind != "table" or name in tables.metadata.tables
                )
            },
        )
        left = [d for d in compare_metadata(context, tables.metadata) if not str(d).count("labels")]
    database.close()
    assert left == []


def test_a_label_store_from_before_is_stamped_and_keeps_its_rows(place: str) -> None:
    with LabelStore(place) as store:
        store.add([mark("a"), mark("b")])
    database = Database(place)
    assert revision(database) == "0003"
    assert database.labels.rows() == sorted([mark("a"), mark("b")], key=lambda m: m.key)
    database.labels.add([mark("c")])
    database.close()
    with LabelStore(place) as store:
        assert store.count() == 3  # and without the studio it is a label store as before


def test_a_database_of_a_newer_norma_is_refused_by_name(place: str) -> None:
    database = Database(place)
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(NormaError, match="revision 9999"):
        Database(place)


def test_labels_stay_append_only_for_the_studio_too(tmp_path: Path) -> None:
    from sqlalchemy.exc import DatabaseError

    database = Database(tmp_path / "labels.sqlite")
    database.labels.add([mark("a")])
    with pytest.raises(DatabaseError, match="append-only"), database.write() as connection:
        connection.execute(text("DELETE FROM labels"))
    assert database.labels.count() == 1
    with database.read() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2  # FULL: a receipt means that it is on the disk
    database.close()
