"""Other tools' files: documented examples read, round trips, and what each format cannot hold."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.labels import Label
from norma.labels.formats import argilla, label_studio, tables, trl
from norma.labels.formats.batch import Reading, lost, shown, tasks_from_draws, tasks_from_labels
from norma.labels.formats.files import read
from norma.labels.queues import Drawn
from norma.spec.types import Item, Status

ITEMS = {
    "q1": Item("q1", ({"role": "user", "content": "它做什么？"},), "zh-Hans"),
    "q2": Item("q2", ({"role": "user", "content": "What?"},), "en"),
}


def label(item: str = "q1", **more: object) -> Label:
    return Label(
        **{
            "item": item,
            "response": "It adds, 谢谢.",
            "rule": "style.polite",
            "rule_hash": "f" * 64,
            "annotator": "ann@x.org",
            "verdict": "compliant",
            "language": "en",
        }
        | more
    )


FULL = [
    label(
        verdict="violation",
        spans=((0, 2), (4, 8)),
        corrected="Certainly: it adds.",
        rationale='curt\n"so"',
        queue="uniform",
        inclusion_probability=0.25,
        guideline="g" * 64,
    ),
    label(rule="form.stop", queue="uniform", inclusion_probability=0.25, guideline="g" * 64),
    label(annotator="bob", verdict="not_applicable", gold=True),
    label(annotator="bob", rule="form.stop", verdict="unsure"),
    label("q2", response="x", annotator="checker:lexicon", source="checker", score=0.25, verdict="violation", checker="c" * 64),
    label("q2", response="x", annotator="0b5f2ae4-37bb-4c0b-9ce8-3ad6a0d1a2f1"),
]


def by_key(labels: list[Label]) -> list[Label]:
    return sorted(labels, key=lambda m: m.key)


def test_label_studio_round_trip() -> None:
    rows = json.loads(json.dumps(label_studio.write(tasks_from_labels(FULL), ITEMS)))
    back = label_studio.read(rows, Reading())
    assert by_key(back.labels) == by_key(FULL)
    assert lost(FULL, back.labels, "Label Studio") == [] and back.notes == []
    assert {i.id: i.messages for i in back.items} == {i.id: i.messages for i in ITEMS.values()}


def test_label_studio_says_what_it_cannot_hold() -> None:
    marks = [label(seconds=3.0), label(rule="form.stop", seconds=5.0), label("q2", revision=1, supersedes="a" * 64)]
    back = label_studio.read(label_studio.write(tasks_from_labels(marks), {}), Reading())
    assert [m.seconds for m in back.labels] == [4.0, 4.0, None]  # one clock an annotation
    assert lost(marks, back.labels, "Label Studio") == [
        "Label Studio cannot hold 'revision' (1 marks)",
        "Label Studio cannot hold 'seconds' (2 marks)",
        "Label Studio cannot hold 'supersedes' (1 marks)",
    ]


# As Label Studio exports it (its guide, "Task format"): ids, dates, an annotator's number, a skipped annotation, a rating.
THEIRS = [
    {
        "id": 17,
        "created_at": "2024-03-09T21:52:49.513742Z",
        "project": 83,
        "data": {"text": "Could you please look?", "question": "Polite?"},
        "annotations": [
            {
                "id": 1001,
                "completed_by": 10,
                "was_cancelled": False,
                "ground_truth": True,
                "lead_time": 4.288,
                "result": [
                    {
                        "id": "Dx",
                        "from_name": "politeness",
                        "to_name": "text",
                        "type": "choices",
                        "value": {"choices": ["Polite"]},
                        "origin": "manual",
                    },
                    {
                        "id": "Dy",
                        "from_name": "span",
                        "to_name": "text",
                        "type": "labels",
                        "value": {"start": 6, "end": 9, "text": "you", "labels": ["politeness"]},
                    },
                ],
            },
            {
                "id": 1002,
                "completed_by": {"id": 11, "email": "b@x.org"},
                "was_cancelled": False,
                "result": [
                    {"id": "Dz", "from_name": "politeness", "to_name": "text", "type": "rating", "value": {"rating": 2}},
                ],
            },
            {"id": 1003, "completed_by": 12, "was_cancelled": True, "result": []},
        ],
        "predictions": [
            {
                "model_version": "model 1",
                "result": [{"from_name": "politeness", "to_name": "text", "type": "choices", "value": {"choices": ["Rude"]}}],
            }
        ],
    }
]


def test_label_studio_as_others_write_it() -> None:
    reading = Reading(
        names={"politeness": "style.polite"},
        hashes={"style.polite": "e" * 64},
        verdicts={"polite": "compliant", "rude": "violation"},
        scale=(1, 5),
        language="en",
    )
    found = label_studio.read(THEIRS, reading)
    assert [(m.annotator, m.verdict, m.score, m.source, m.gold, m.seconds) for m in found.labels] == [
        ("10", "compliant", None, "human", True, 4.288),
        ("b@x.org", "violation", 0.25, "human", False, None),
        ("model:model 1", "violation", None, "judge", False, None),
    ]
    assert {(m.item, m.rule, m.rule_hash, m.response) for m in found.labels} == {("17", "style.polite", "e" * 64, "Could you please look?")}
    assert found.labels[0].spans == ((6, 9),)
    assert found.items[0].messages[0]["content"] == "Polite?" and found.notes == ["1 skipped annotations were passed over"]
    with pytest.raises(NormaError, match=r"'Polite' is not a verdict.*--verdict polite=compliant"):
        label_studio.read(THEIRS, Reading())


def test_the_labelling_configuration_names_every_control() -> None:
    tree = ElementTree.fromstring(label_studio.configuration(["style.polite", 'a "quoted" & <rule>']))
    names = {element.get("name") for element in tree.iter() if element.get("name")}
    rows = label_studio.write(tasks_from_labels([FULL[0], replace(FULL[0], rule='a "quoted" & <rule>')]), ITEMS)
    used = {region["from_name"] for row in rows for a in row["annotations"] for region in a["result"]}
    assert used <= names and {"prompt", "response"} <= names
    assert {c.get("value") for c in tree.iter("Choice")} == {s.value for s in Status} - {"error"}


def test_argilla_round_trip() -> None:
    marks = [m for m in FULL if not m.gold]
    rows = json.loads(json.dumps(argilla.write(tasks_from_labels(marks), ITEMS)))
    back = argilla.read(rows, Reading())
    assert by_key(back.labels) == by_key(marks) and lost(marks, back.labels, "Argilla") == []
    assert {i.id: i.messages for i in back.items} == {i.id: i.messages for i in ITEMS.values()}


def test_argilla_says_what_it_cannot_hold() -> None:
    second = replace(FULL[4], annotator="checker:other")
    marks = [*FULL, second, label("q2", seconds=2.0)]
    back = argilla.read(argilla.write(tasks_from_labels(marks), ITEMS), Reading())
    assert lost(marks, back.labels, "Argilla") == [
        "Argilla cannot hold 1 of the marks",
        "Argilla cannot hold 'gold' (1 marks)",
        "Argilla cannot hold 'seconds' (1 marks)",
    ]
    with pytest.raises(NormaError, match="two rules have one name in Argilla"):
        argilla.write(tasks_from_labels([label(), label(rule="style-polite")]), {})


def test_argilla_as_others_write_it() -> None:
    """As ``dataset.records.to_json`` of Argilla 2 gives it: a label question, a rating, a ranking, a suggestion."""
    rows = [
        {
            "id": "r1",
            "fields": {"instruction": "Say hello", "response": "Hello!"},
            "metadata": {"source": "x"},
            "vectors": {},
            "status": "completed",
            "_server_id": "7",
            "suggestions": {"polite": {"value": "yes", "score": 0.9, "agent": "gpt"}},
            "responses": {
                "polite": [{"value": "yes", "user_id": "u1"}, {"value": "no", "user_id": "u2"}],
                "quality": [{"value": 4, "user_id": "u1"}],
                "order": [{"value": [{"value": "a", "rank": 1}], "user_id": "u1"}],
            },
        }
    ]
    found = argilla.read(rows, Reading(verdicts={"yes": "compliant", "no": "violation"}, scale=(1, 5)))
    assert [(m.rule, m.annotator, m.verdict, m.score, m.source) for m in found.labels] == [
        ("polite", "u1", "compliant", None, "human"),
        ("polite", "u2", "violation", None, "human"),
        ("quality", "u1", "compliant", 0.75, "human"),
        ("polite", "model:gpt", "compliant", None, "judge"),
    ]
    assert found.notes == ["answers to the question 'order' are not verdicts, and were passed over"]
    assert (found.items[0].id, found.items[0].messages[0]["content"]) == ("r1", "Say hello")


_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            _TEXT.filter(bool),
            st.sampled_from(["r.one", "r.two"]),
            st.sampled_from(["p", "q"]),
            st.sampled_from([s.value for s in Status]),
            _TEXT,
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_round_trips(rows: list[tuple[str, str, str, str, str, str, bool]]) -> None:
    marks = {m.key: m for m in (Label(i, t, r, "h", who, v, corrected=c or None, rationale=c, gold=g) for i, t, r, who, v, c, g in rows)}
    labels = list(marks.values())
    assert by_key(label_studio.read(label_studio.write(tasks_from_labels(labels), {}), Reading()).labels) == by_key(labels)
    plain = [replace(m, gold=False) for m in labels]
    assert by_key(argilla.read(argilla.write(tasks_from_labels(plain), {}), Reading()).labels) == by_key(plain)


def test_tasks_of_a_queue_come_back_with_their_queue() -> None:
    drawn = [Drawn("d", 0, "q1", "Answer.", "style.polite", "f" * 64, "en", "", "uniform", 0.3)]
    tasks = tasks_from_draws(
        drawn, [label("q1", response="Answer.", annotator="checker:x", source="checker"), label("q1", response="Answer.")]
    )
    (row,) = label_studio.write(tasks, ITEMS)
    assert row["annotations"] == [] and len(row["predictions"]) == 1 and row["data"]["prompt"] == "它做什么？"
    row["annotations"] = [
        {"completed_by": 3, "result": [{"type": "choices", "from_name": "style.polite", "value": {"choices": ["violation"]}}]}
    ]
    mark = next(m for m in label_studio.read([row], Reading()).labels if m.source == "human")
    assert (mark.queue, mark.inclusion_probability, mark.rule_hash, mark.annotator) == ("uniform", 0.3, "f" * 64, "3")


def test_parallel_columns_and_a_scale(tmp_path: Path) -> None:
    path = tmp_path / "crowd.csv"
    path.write_text('Site,Id,Request,Score1,Score2,Who1,Who2\nA,7,"Please, look",25,7,w1,w2\nB,7,Look,1,,w1,\n', encoding="utf-8")
    columns = {"item": "Site+Id", "response": "Request", "annotator": "Who*", "score": "Score*"}
    found = read(path, Reading(rule="style.polite", scale=(1, 25), language="en"), columns=columns)
    assert [(m.item, m.response, m.annotator, m.score, m.verdict, m.rule) for m in found.labels] == [
        ("A#7", "Please, look", "w1", 1.0, "compliant", "style.polite"),
        ("A#7", "Please, look", "w2", 0.25, "violation", "style.polite"),
        ("B#7", "Look", "w1", 0.0, "violation", "style.polite"),
    ]
    for wrong, message in (
        ({**columns, "score": "Note*"}, r"no column fits 'Note\*'"),
        ({**columns, "item": "Idd"}, "there is no column 'Idd'. Did you mean 'Id'"),
        ({**columns, "respons": "Id"}, "unknown field 'respons'"),
        ({"item": "Id"}, "must name 'response'"),
    ):
        with pytest.raises(NormaError, match=message):
            read(path, Reading(rule="r", scale=(1, 25)), columns=wrong)
    with pytest.raises(NormaError, match=r"crowd.csv:2: a score of 25 lies outside the scale 1 to 5"):
        read(path, Reading(rule="r", scale=(1, 5)), columns=columns)
    with pytest.raises(NormaError, match="nothing says which rule is marked"):
        read(path, Reading(scale=(1, 25)), columns=columns)
    with pytest.raises(NormaError, match=r"'annotator' is missing.*--map annotator=COLUMN"):
        read(path, Reading(), "table")


def test_own_csv_round_trip(tmp_path: Path) -> None:
    marks = [*FULL, label(score=1 / 3, seconds=2.5, revision=2, supersedes="b" * 64, response=' two\nlines, "quoted" ')]
    (tmp_path / "l.csv").write_text(tables.write(marks), encoding="utf-8")
    assert by_key(read(tmp_path / "l.csv", Reading()).labels) == by_key(marks)


def test_training_rows_as_labels() -> None:
    rows = [
        ("f:1", {"prompt": "Q1", "chosen": "good", "rejected": "bad"}),
        ("f:2", {"prompt": [{"role": "user", "content": "Q2"}], "completion": [{"role": "assistant", "content": "A2"}], "label": False}),
        ("f:3", {"messages": [{"role": "user", "content": "Q3"}, {"role": "assistant", "content": "A3"}]}),
    ]
    found = trl.read(rows, Reading(rule="r", language="en"))
    assert [(m.response, m.verdict, m.corrected) for m in found.labels] == [
        ("good", "compliant", None),
        ("bad", "violation", "good"),
        ("A2", "violation", None),
        ("A3", "compliant", None),
    ]
    assert [shown(i.messages) for i in found.items] == ["Q1", "Q2", "Q3"]
    for bad in ({"prompt": "Q", "chosen": "a", "rejected": "a"}, {"text": "only some prose here"}, {"a": 1}):
        with pytest.raises(NormaError, match="f:9"):
            trl.read([("f:9", bad)], Reading(rule="r"))


def test_a_row_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"prompt": "Q", "completion": "A"}\n{"prompt": "Q", "comple', encoding="utf-8")
    with pytest.raises(NormaError, match=r"x\.jsonl:2"):
        read(tmp_path / "x.jsonl", Reading(rule="r"))
