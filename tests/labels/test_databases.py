"""What both databases must hold: SQLite, and a real PostgreSQL server."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from norma.base.errors import NormaError
from norma.labels import Label, LabelStore
from norma.labels.queues import Drawn
from norma.spec.types import Item


def label(item: str = "a", response: str = "Certainly: it adds.", **more: object) -> Label:
    return Label(
        **{"item": item, "response": response, "rule": "style.polite", "rule_hash": "f" * 64, "annotator": "ann", "verdict": "compliant"}
        | more
    )


def raw(place: str) -> str:
    return place.replace("postgresql://", "postgresql+psycopg://") if "://" in place else f"sqlite:///{place}"


def test_rows_items_and_draws_come_back(place: str) -> None:
    one = label(
        spans=((0, 9),), score=1 / 3, corrected="您好：它求和。", seconds=3.5, queue="uniform", inclusion_probability=0.1 + 0.2, gold=True
    )
    item = Item("a", ({"role": "user", "content": "它做什么？🙂"},), "zh-Hans", {"missing": True, "n": 2}, "doc-1", "求和")
    common = ("style.polite", "f" * 64, "en", "doc-1")
    drawn = [Drawn("d", 0, "a", "r0", *common, "uniform", 0.3), Drawn("d", 1, "a", "r1", *common, "rare", None)]
    with LabelStore(place) as store:
        assert store.add([one, label("b")]) == 2 and store.add([one]) == 0
        assert store.add_items([item, item]) == 1 and store.add_items([item]) == 0
        assert store.add_draws(drawn) == 2 and store.add_draws(drawn) == 0
    with LabelStore(place) as store:
        assert store.rows(item="a") == [one]
        assert store.items() == {"a": item}
        assert store.draws() == drawn and store.draws("rare") == drawn[1:] and store.draws(rule="no") == []
        with pytest.raises(NormaError, match="item a is already there with other contents"):
            store.add_items([Item("z", ()), Item("a", ())])
        assert list(store.items()) == ["a"]  # the whole transaction was taken back


def test_exports_are_equal_whatever_the_database(place: str, tmp_path: Path) -> None:
    rows = [label(f"i{n}", score=n / 7, response="答案" * n, verdict="violation" if n % 3 else "unsure") for n in range(600)]
    with LabelStore(place) as store:
        assert store.add(rows) == 600
        made = store.export(tmp_path / "a.jsonl")
    with LabelStore(tmp_path / "other.sqlite") as other:
        assert other.import_(tmp_path / "a.jsonl") == 600
        assert other.export(tmp_path / "b.jsonl").digest == made.digest
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_nothing_is_changed_or_deleted(place: str) -> None:
    with LabelStore(place) as store:
        store.add([label()])
        store.add_items([Item("a", ())])
        store.add_draws([Drawn("d", 0, "a", "r", "style.polite", "", "", "", "rare", None)])
    engine = create_engine(raw(place))
    statements = [
        f"{what} {table}{rest}"
        for table in ("labels", "items", "draws", "schema_versions")
        for what, rest in (("UPDATE", " SET created = 0"), ("DELETE FROM", ""))
    ]
    if "://" in place:
        statements.append("TRUNCATE labels")
    for statement in statements:
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(text(statement))
    engine.dispose()
    with LabelStore(place) as store:
        assert store.rows() == [label()] and len(store.draws()) == 1


def test_replacing_is_passed_over_on_sqlite(tmp_path: Path) -> None:
    """INSERT OR REPLACE deletes the old row without asking a deletion's trigger."""
    with LabelStore(tmp_path / "l.sqlite") as store:
        store.add([label()])
    connection = sqlite3.connect(tmp_path / "l.sqlite")
    columns = ", ".join(row[1] for row in connection.execute("PRAGMA table_info(labels)"))
    changed = columns.replace("verdict", "'violation'")
    connection.execute(f"INSERT OR REPLACE INTO labels ({columns}) SELECT {changed} FROM labels")
    connection.commit()
    assert connection.execute("SELECT verdict FROM labels").fetchall() == [("compliant",)]
    connection.close()


def _write(place: str, writer: int, count: int, gate: object) -> None:
    """Own labels and shared ones, the second writer in the opposite order: that is how two transactions come to wait for each other."""
    with LabelStore(place) as store:
        gate.wait(60)  # type: ignore[attr-defined]
        for n in range(count):
            batch = [*(label(f"own{writer}.{n}.{m}") for m in range(3)), *(label(f"shared{n}.{m}") for m in range(5))]
            store.add(batch[::-1] if writer else batch)


def test_two_processes_at_once_lose_nothing(place: str) -> None:
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(2)
    workers = [context.Process(target=_write, args=(place, w, 20, gate)) for w in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(90)
    assert [worker.exitcode for worker in workers] == [0, 0]
    with LabelStore(place) as store:
        found = {m.item for m in store.rows()}
        assert store.count() == len(found)
    own = {f"own{w}.{n}.{m}" for w in range(2) for n in range(20) for m in range(3)}
    assert found == own | {f"shared{n}.{m}" for n in range(20) for m in range(5)}


_KILLED = """
import sys
from norma.labels import Label, LabelStore
store = LabelStore(sys.argv[1])
for n in range(100000):
    store.add([Label(item=f"i{n}.{m}", response="r", rule="r", rule_hash="h", annotator="a", verdict="unsure") for m in range(5)])
    print(n, flush=True)
"""


def test_a_kill_loses_nothing_that_was_acknowledged(place: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", _KILLED, place], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = -1
    for line in process.stdout:
        told = int(line)
        if told >= 15:
            os.kill(process.pid, signal.SIGKILL)
            break
    told = max([told, *(int(line) for line in process.stdout if line.strip())])
    process.wait(20)
    with LabelStore(place) as store:
        count = store.count()
        assert count % 5 == 0 and count >= 5 * (told + 1)  # whole transactions, and all that were reported
        again = [Label(f"i{n}.{m}", "r", "r", "h", "a", "unsure") for n in range(told + 3) for m in range(5)]
        assert store.add(again) == max(0, len(again) - count)
        assert store.count() == max(count, len(again))


OLD_SCHEMA = """
CREATE TABLE labels ("key" VARCHAR(64) NOT NULL, item TEXT NOT NULL, response_hash VARCHAR(64) NOT NULL, response TEXT NOT NULL,
rule TEXT NOT NULL, rule_hash VARCHAR(64) NOT NULL, annotator TEXT NOT NULL, verdict VARCHAR(16) NOT NULL, source VARCHAR(16) NOT NULL,
language VARCHAR(16) NOT NULL, score FLOAT, spans JSON NOT NULL, corrected TEXT, rationale TEXT NOT NULL, checker VARCHAR(64) NOT NULL,
revision INTEGER NOT NULL, seconds FLOAT, queue TEXT NOT NULL, inclusion_probability FLOAT, guideline TEXT NOT NULL, gold BOOLEAN NOT NULL,
supersedes VARCHAR(64), created FLOAT NOT NULL, PRIMARY KEY ("key"));
CREATE TRIGGER labels_no_update BEFORE UPDATE ON labels BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END;
CREATE TRIGGER labels_no_delete BEFORE DELETE ON labels BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END;
"""


def test_a_store_from_before_schema_numbers_opens(tmp_path: Path) -> None:
    path, old = tmp_path / "old.sqlite", label("old", spans=((1, 3),))
    connection = sqlite3.connect(path)
    connection.executescript(OLD_SCHEMA)
    row = old.row() | {"created": 1.0, "spans": "[[1, 3]]"}
    connection.execute(f"INSERT INTO labels ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
    connection.commit()
    connection.close()
    for _ in range(2):
        with LabelStore(path) as store:
            assert store.rows(item="old") == [old] and store.draws() == []
            store.add([label("new")])
            store.add_items([Item("old", ())])
            assert store.count() == 2
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT version FROM schema_versions ORDER BY version").fetchall() == [(1,), (2,)]
    connection.close()


def test_a_store_of_a_newer_norma_is_refused(place: str) -> None:
    LabelStore(place).close()
    engine = create_engine(raw(place))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO schema_versions (version, created) VALUES (99, 0)"))
    engine.dispose()
    with pytest.raises(NormaError, match=r"has schema 99, and this Norma knows 2\. Use the newer Norma"):
        LabelStore(place)


def test_what_a_database_cannot_hold_is_one_line(database: str) -> None:
    with LabelStore(database) as store:
        with pytest.raises(NormaError, match="cannot keep") as error:
            store.add([label(response="a\0b")])
        assert "\n" not in str(error.value) and store.count() == 0
    with pytest.raises(NormaError, match="the label store cannot be used"):
        LabelStore(database.replace("host=", "host=/nowhere"))


def test_half_a_character_is_one_line(place: str) -> None:
    with LabelStore(place) as store, pytest.raises(NormaError, match="cannot keep"):
        store.add([label(response="half \ud83d")])
