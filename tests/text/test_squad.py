"""Exact match and F1 by the published rules, worked by hand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.text.squad import cmrc_units, exact, f1, longest_run, squad_words


def test_squad_by_hand() -> None:
    assert squad_words("The  Denver, Broncos!") == ["denver", "broncos"]
    assert exact("the Denver Broncos", ["Denver Broncos", "Broncos"]) == 1.0
    assert exact("Carolina Panthers", ["Denver Broncos"]) == 0.0 and f1("Carolina Panthers", ["Denver Broncos"]) == 0.0
    # said: {in, july, 1999}, given: {july, 1999}: precision 2/3, recall 1: F1 = 4/3 / 5/3 = .8; the other: 2 * 1/3 / (4/3) = .5
    assert f1("in July 1999", ["1999", "July 1999"]) == pytest.approx(0.8)
    assert f1("in July 1999", ["1999"]) == pytest.approx(0.5)
    # Bags: "the the cat cat" holds cat twice, the answer once: precision 1/2, recall 1.
    assert f1("the the cat cat", ["cat"]) == pytest.approx(2 / 3)


def test_no_answer_is_right_where_there_is_none() -> None:
    assert exact("", []) == f1("", []) == 1.0
    assert exact("Paris", []) == f1("Paris", []) == 0.0 == f1("", ["Paris"])


def test_cmrc_by_hand() -> None:
    assert cmrc_units("《战国无双3》由KOEI开发。") == ["战", "国", "无", "双", "3", "由", "koei", "开", "发"]
    assert exact("《战国无双》", ["战国无双"], "cmrc") == 1.0 == f1("《战国无双》", ["战国无双"], "cmrc")
    # said 武田信玄等人 (6), given 武田信玄 (4): the run is 4 long: precision 4/6, recall 1: F1 = .8
    assert f1("武田信玄等人", ["武田信玄"], "cmrc") == pytest.approx(0.8)
    # a run, not a bag: 北京市 and 市京北 share one neighbouring character only: 1/3, 1/3
    assert f1("北京市", ["市京北"], "cmrc") == pytest.approx(1 / 3)
    assert f1("北京市", ["上海", "北京"], "cmrc") == pytest.approx(2 * (2 / 3) / (5 / 3))
    assert cmrc_units("version 3.5 is out") == ["version", "3.5", "is", "out"]


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_longest_run_by_trying_all(a: str, b: str) -> None:
    runs = {a[i:j] for i, j in itertools.combinations(range(len(a) + 1), 2)}
    assert longest_run(a, b) == max((len(run) for run in runs if run in b), default=0)


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=3), st.sampled_from(["squad", "cmrc"]))
def test_exact_answers_have_all_of_f1(said: str, answers: list[str], rules: str) -> None:
    value = f1(said, answers, rules)  # type: ignore[arg-type]
    assert 0.0 <= value <= 1.0
