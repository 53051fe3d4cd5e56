"""The label store: append-only, nothing doubled, frozen exports. What both databases must hold is in test_databases.py."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.labels import Label, LabelStore, marks, response_hash
from norma.labels.store import export_digest
from norma.spec.types import Status, Verdict


def label(item: str = "a#en", response: str = "Certainly: it adds.", rule: str = "style.polite", **more: object) -> Label:
    return Label(
        **{"item": item, "response": response, "rule": rule, "rule_hash": "f" * 64, "annotator": "ann", "verdict": "compliant", **more}
    )


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    one = label(
        spans=((0, 9),), score=0.25, corrected="您好：它求和。", rationale="温和", seconds=3.5, queue="uniform", inclusion_probability=0.3,
        guideline="g" * 64, gold=True, language="zh-Hans",
    )  # fmt: skip
    with LabelStore(tmp_path / "new" / "labels.sqlite") as store:
        assert store.add([one, label(rule="form.short", verdict="violation")]) == 2
        assert store.rows(rule="style.polite") == [one]
        assert [x.rule for x in store.rows(verdict="violation")] == ["form.short"]
        assert store.rows(annotator="nobody") == [] and store.count() == 2
    with LabelStore(tmp_path / "new" / "labels.sqlite") as store:  # opened again: still there
        assert store.rows(rule="style.polite", source="human", item="a#en") == [one]


def test_adding_twice_adds_once(tmp_path: Path) -> None:
    rows = [label(item=f"i{n}") for n in range(1200)]  # more than two batches
    with LabelStore(tmp_path / "l.sqlite") as store:
        assert store.add(rows[:700]) == 700
        assert store.add(rows) == 500
        assert store.add([*rows, *rows]) == 0
        assert store.add([label(item="new"), label(item="new")]) == 1
        assert store.count() == 1201


def test_the_database_refuses_changes_and_deletions(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "l.sqlite") as store:
        store.add([label()])
    raw = sqlite3.connect(tmp_path / "l.sqlite")
    for statement in ("UPDATE labels SET verdict = 'violation'", "DELETE FROM labels"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)
    raw.close()


def test_a_contradicting_mark_needs_a_revision(tmp_path: Path) -> None:
    with LabelStore(tmp_path / "l.sqlite") as store:
        first = label()
        store.add([first])
        with pytest.raises(NormaError, match="already marked"):
            store.add([label(item="other"), label(verdict="violation")])
        assert store.count() == 1  # the whole transaction was taken back
        second = label(verdict="violation", revision=1, supersedes=first.key)
        store.add([second])
        assert len(store.rows()) == 2
        assert store.rows(current=True) == [second]


def test_checker_verdicts_become_marks() -> None:
    verdict = Verdict("style.polite", "a" * 64, "q1", "lexicon", "b" * 64, "train", Status.VIOLATION, 0.5, ((0, 4),), "no mark")
    (mark,) = marks([verdict], "Sure it is.", "en")
    assert (mark.annotator, mark.source, mark.checker, mark.verdict) == ("checker:lexicon", "checker", "b" * 64, "violation")
    assert (mark.item, mark.rule, mark.rule_hash, mark.score, mark.spans, mark.language) == (
        "q1",
        "style.polite",
        "a" * 64,
        0.5,
        ((0, 4),),
        "en",
    )
    # Another checker version, another annotator and another answer are other marks.
    others = [label(), label(checker="c" * 64), label(annotator="bob"), label(response="x"), label(revision=1), label(rule_hash="e" * 64)]
    assert len({x.key for x in others}) == len(others)


def test_export_is_frozen_and_independent_of_order(tmp_path: Path) -> None:
    rows = [label(item=f"i{n}", score=n / 7, response="答案" * n) for n in range(20)]
    exports = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        with LabelStore(tmp_path / f"{name}.sqlite") as store:
            for row in order:
                store.add([row])
            exports.append(store.export(tmp_path / f"{name}.jsonl"))
    assert exports[0].digest == exports[1].digest and exports[0].rows == 20
    digests = [hashlib.sha256((tmp_path / f"{name}.jsonl").read_bytes()).hexdigest() for name in "ab"]
    assert digests[0] == digests[1]
    with LabelStore(tmp_path / "c.sqlite") as store:
        assert store.import_(tmp_path / "a.jsonl") == 20
        assert store.import_(tmp_path / "b.jsonl") == 0
        assert store.export(tmp_path / "c.jsonl").digest == exports[0].digest
        store.add([label(item="one more")])
        assert store.export(tmp_path / "c.jsonl").digest != exports[0].digest
        assert store.export(tmp_path / "d.jsonl", item="one more").rows == 1
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert export_digest(lines[::-1]) == exports[0].digest


def test_people_may_leave_out_keys_and_hashes(tmp_path: Path) -> None:
    row = {
        "item": "i",
        "response": "Yes.",
        "rule": "r",
        "rule_hash": "0" * 64,
        "annotator": "li",
        "verdict": "violation",
        "rationale": "生硬",
    }
    (tmp_path / "h.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    with LabelStore(tmp_path / "l.sqlite") as store:
        assert store.import_(tmp_path / "h.jsonl") == 1
        (read,) = store.rows()
        assert (read.source, read.rationale, read.response_hash) == ("human", "生硬", response_hash("Yes."))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "ok"}, "'ok' is not a verdict"),
        ({"verdikt": "violation"}, "unknown key 'verdikt' in a label. Did you mean 'verdict'"),
        ({"item": None}, "not a label"),
        ({"key": "0" * 64}, "the key of this label does not fit"),
        ({"inclusion_probability": 0}, "an inclusion probability lies above 0"),
    ],
)
def test_bad_rows_are_one_line_and_add_nothing(tmp_path: Path, change: dict[str, object], message: str) -> None:
    bad = {**label(item="second").row(), **change}
    if change.get("item", "") is None:
        del bad["item"]
    (tmp_path / "h.jsonl").write_text("\n".join(json.dumps(row) for row in (label().row(), bad)), encoding="utf-8")
    with LabelStore(tmp_path / "l.sqlite") as store:
        with pytest.raises(NormaError) as error:
            store.import_(tmp_path / "h.jsonl")
        assert message in str(error.value) and "row 2" in str(error.value) and "\n" not in str(error.value)
        assert store.count() == 0


def test_bad_places(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is no database, but it is long enough to look at" * 30)
    for place, message in (
        (tmp_path / "text", "not a label store"),
        ("mysql://host/x", "labels cannot be kept|no driver"),
        ("x://y", "no driver"),
    ):
        with pytest.raises(NormaError, match=message):
            LabelStore(place)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=20), st.sampled_from([s.value for s in Status])), max_size=12))
def test_the_store_is_a_set_keyed_by_key(triples: list[tuple[str, str, str]]) -> None:
    rows = [label(item=i, response=r, verdict=v, source="checker") for i, r, v in triples if "\0" not in i + r]
    expected: dict[str, Label] = {}
    for row in rows:
        expected.setdefault(row.key, row)
    with LabelStore("sqlite://") as store:
        assert store.add(rows) == len(expected)
        assert store.rows() == [expected[key] for key in sorted(expected)]
