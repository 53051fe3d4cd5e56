"""Chat, instruction and preference rows: each layout in the wild becomes the same few shapes."""

from __future__ import annotations

from typing import Any

import pytest

from norma.text.formats import Record
from norma.text.quarantine import Quarantine
from norma.text.shapes import Completion, Conversation, Message, Misfit, Preference, Row, Text, recognise, shaped


def said(*contents: str, first: str = "user") -> tuple[Message, ...]:
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return tuple(Message(role=roles[i % 2], content=c) for i, c in enumerate(contents))


def plain(*contents: str) -> list[dict[str, str]]:
    return [dict(m) for m in said(*contents)]  # type: ignore[misc]  # a TypedDict is a dict of its values


ANSWER = [{"role": "assistant", "content": "A"}]
WORSE = [{"role": "assistant", "content": "B"}]
CASES: list[tuple[dict[str, Any], str, Row]] = [
    ({"messages": plain("Q", "A")}, "messages", Conversation(said("Q", "A"))),
    ({"messages": plain("Q", "A"), "label": False}, "messages", Completion(said("Q"), said("A", first="assistant"), False)),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, *ANSWER]}, "messages", Conversation(said("Q", "A"))),
    ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, "sharegpt", Conversation(said("Q", "A"))),
    (
        {
            "conversations": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "A"},
            "rejected": {"from": "gpt", "value": "B"},
        },
        "sharegpt",
        Preference(said("Q"), said("A", first="assistant"), said("B", first="assistant")),
    ),
    ({"instruction": "Do", "input": "", "output": "A"}, "alpaca", Conversation(said("Do", "A"))),
    ({"instruction": "Do", "input": "this", "output": "A"}, "alpaca", Conversation(said("Do\n\nthis", "A"))),
    ({"instruction": "Do", "output": "A", "history": [["Q", "R"]]}, "alpaca", Conversation(said("Q", "R", "Do", "A"))),
    (
        {"instruction": "Do", "input": "", "output": ["A", "B"]},
        "alpaca",
        Preference(said("Do"), said("A", first="assistant"), said("B", first="assistant")),
    ),
    ({"prompt": "Q", "completion": "A"}, "prompt_completion", Completion(said("Q"), said("A", first="assistant"))),
    ({"prompt": plain("Q"), "completion": ANSWER, "label": True}, "kto", Completion(said("Q"), said("A", first="assistant"), True)),
    ({"prompt": "Q", "completion": "A", "label": "false"}, "kto", Completion(said("Q"), said("A", first="assistant"), False)),
    (
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        "preference",
        Preference(said("Q"), said("A", first="assistant"), said("B", first="assistant")),
    ),
    (
        {"prompt": plain("Q"), "chosen": [*plain("Q"), *ANSWER], "rejected": [*plain("Q"), *WORSE]},
        "preference",
        Preference(said("Q"), said("A", first="assistant"), said("B", first="assistant")),
    ),
    (
        {"chosen": [*plain("Q"), *ANSWER], "rejected": [*plain("Q"), *WORSE]},
        "preference",
        Preference(said("Q"), said("A", first="assistant"), said("B", first="assistant")),
    ),
    (
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
        "preference",
        Preference(said("Q"), said("A", first="assistant"), said("B", first="assistant")),
    ),
    (
        {"chosen": "The sky is blue.", "rejected": "The sky is green."},
        "preference",
        Preference(said("The sky is"), said("blue.", first="assistant"), said("green.", first="assistant")),
    ),
    (
        {"text": ["\n\nHuman: Q\n\nAssistant: B", "\n\nHuman: Q\n\nAssistant: A"], "score": [0.0, 1.0]},
        "transcripts",
        Preference(said("Q"), said("A", first="assistant"), said("B", first="assistant")),
    ),
    ({"question": "Q", "answer": "A"}, "question_answer", Completion(said("Q"), said("A", first="assistant"))),
    ({"id": "1", "title": "T", "text": "Some text."}, "text", Text("Some text.", "T")),
    ({"label": "1", "text_a": "some review of a film"}, "text", Text("some review of a film")),
    ({"label": "1", "评论": "这个宾馆比较陈旧了"}, "text", Text("这个宾馆比较陈旧了")),
]


@pytest.mark.parametrize(("fields", "layout", "row"), CASES)
def test_each_layout(fields: dict[str, Any], layout: str, row: Row) -> None:
    assert recognise(fields) == layout
    quarantine = Quarantine()
    assert [made for _, made in shaped([Record("f", 1, fields)], quarantine)] == [row] and not len(quarantine)


@pytest.mark.parametrize(
    ("fields", "said_so"),
    [
        ({"messages": [{"role": "wizard", "content": "x"}]}, "unknown role"),
        ({"messages": []}, "no list of messages"),
        ({"messages": [{"role": "user", "content": "only a question"}]}, "says nothing"),
        ({"instruction": "Do", "output": ""}, "output is empty"),
        ({"prompt": "Q", "chosen": "A", "rejected": "A"}, "the same"),
        ({"chosen": "One.", "rejected": "Two."}, "no prompt"),
        ({"prompt": "Q", "completion": " "}, "no list of messages"),
        ({"text": ["a", "b"], "score": [1, 1]}, "same score"),
        ({"english": "two men", "german": "zwei Männer"}, "no known shape"),
    ],
)
def test_what_does_not_fit_is_set_aside(fields: dict[str, Any], said_so: str) -> None:
    quarantine = Quarantine()
    assert list(shaped([Record("f", 7, fields)], quarantine)) == []
    assert quarantine.first[0][1] == 7 and said_so in quarantine.first[0][2]


def test_the_majority_decides_file_by_file() -> None:
    alpaca, pair = {"instruction": "Do", "output": "A"}, {"prompt": "Q", "chosen": "A", "rejected": "B"}
    records = [Record("a", 1, alpaca), Record("a", 2, pair), Record("a", 3, alpaca), Record("b", 1, pair), Record("b", 2, {"x": 1})]
    quarantine = Quarantine()
    kinds = [(r.file, type(row)) for r, row in shaped(records, quarantine)]
    assert kinds == [("a", Conversation), ("a", Conversation), ("b", Preference)]
    assert [(file, line) for file, line, _ in quarantine.first] == [("a", 2), ("b", 2)]


def test_misfit_is_a_value_error() -> None:
    assert issubclass(Misfit, ValueError)


@pytest.mark.parametrize("mark", [{"train": False}, {"weight": 0}])
def test_a_turn_that_is_not_to_be_learnt_keeps_its_mark(mark: dict[str, Any]) -> None:
    rows = [{"messages": [*plain("Q", "A"), {"role": "user", "content": "R"}, {"role": "assistant", "content": "B", **mark}]}]
    ((_, row),) = shaped([Record("f", 1, rows[0])], Quarantine())
    assert isinstance(row, Conversation) and [m.get("train", True) for m in row.messages] == [True, True, True, False]
    flagged = {"messages": [{**plain("Q")[0]}, {"role": "assistant", "content": "A", "train": True, "weight": 1}]}
    ((_, kept),) = shaped([Record("f", 1, flagged)], Quarantine())
    assert kept == Conversation(said("Q", "A"))
