"""Verifiable answers: hand-marked ones in both languages, guesses that hedge, facts that are missing, real word problems."""

from __future__ import annotations

import gzip
import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from norma.check import build
from norma.check.final_answer import exact
from norma.spec import registry
from norma.spec.types import Item, Message, Status
from norma.text.problems import word_problem


def item(answer: Any) -> Item:
    return Item("q", (Message(role="user", content="What is 17 + 25?"),), facts={"answer": answer})


@pytest.mark.parametrize(
    ("answer", "right", "good"),
    [
        ("17 + 25 = 42\n#### 42", "42", True),
        ("#### 42", 42, True),
        ("####42", "42.0", True),
        ("#### $1,234.50", "1234.5", True),
        ("#### -3", "-3", True),
        ("#### \u22123", -3, True),
        ("答案是四十二。\n#### 42。", "42", True),
        ("#### 3/4", "0.75", True),
        ("#### 43", "42", False),
        ("42", "42", False),
        ("#### 41 #### 42", "42", False),
        ("#### it is 42", "42", False),
        ("#### 42", "420", False),
        ("####", "42", False),
        ("#### 1,23", "123", False),
    ],
)
def test_the_number_behind_the_marker(answer: str, right: Any, good: bool) -> None:
    finding = build("final_answer", {}, "").check(item(right), answer)
    assert (finding.status is Status.COMPLIANT) == good and finding.score == float(good), finding
    for start, end in finding.evidence:
        assert exact(answer[start:end]) is not None


def test_a_number_that_is_near_gets_part_of_the_score_and_never_passes() -> None:
    checker = build("final_answer", {"near": 10}, "")
    found = [checker.check(item("42"), f"#### {number}") for number in (42, 43, 37, 52, 420)]
    assert [f.score for f in found] == pytest.approx([1.0, 0.45, 0.25, 0.0, 0.0])
    assert [f.status for f in found] == [Status.COMPLIANT, *[Status.VIOLATION] * 4]


def test_the_last_number_wherever_it_stands() -> None:
    checker = build("last_number", {}, "")
    assert checker.check(item("42"), "First 17, then 42.").status is Status.COMPLIANT
    assert checker.check(item("42"), "42, or perhaps 43").status is Status.VIOLATION
    assert checker.check(item("42"), "forty-two").status is Status.VIOLATION


@pytest.mark.parametrize("facts", [{}, {"answer": "many"}, {"answer": None}, {"answer": True}])
def test_without_a_right_answer_it_is_an_error_never_a_zero(facts: dict[str, Any]) -> None:
    asked = Item("q", (Message(role="user", content="What is 17 + 25? facts: answer = 42"),), facts=facts)
    assert registry.run(build("final_answer", {}, ""), asked, "#### 42").status is Status.ERROR


def test_exact_numbers() -> None:
    assert exact(" 1,000,000.25 ") == Fraction(4000001, 4) and exact("6/8") == Fraction(3, 4)
    assert exact("1/0") is None and exact("12a") is None and exact("") is None and exact("1,0") is None


def test_every_solution_of_gsm8k_is_right_by_both_checkers() -> None:
    given = os.environ.get("NORMA_TEST_DATA")
    path = (Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data") / "gsm8k" / "test.jsonl.gz"
    if not path.is_file():
        pytest.skip("no gsm8k here: set NORMA_TEST_DATA to a folder that holds gsm8k/test.jsonl.gz")
    first, second, seen = build("final_answer", {}, ""), build("last_number", {}, ""), 0
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row = word_problem(json.loads(line), f"test:{number}")
            assert isinstance(row, dict), row
            asked = Item(row["id"], tuple(row["messages"][:1]), facts=row["facts"])
            text = row["messages"][1]["content"]
            assert "<<" not in text
            assert first.check(asked, text).status is second.check(asked, text).status is Status.COMPLIANT, text
            wrong = Item(row["id"], tuple(row["messages"][:1]), facts={"answer": str(float(row["facts"]["answer"]) + 1)})
            assert first.check(wrong, text).status is Status.VIOLATION
            seen += 1
    assert seen == 1319
