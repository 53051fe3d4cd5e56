"""chrF equals sacrebleu's; openings; the baseline."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.chrf import CHRF

from norma.evaluate import quality as q

WORDS = ["the", "a", "of", "return", "value", "object", "json", "dumps", "您好", "该条目", "serialize", "stream"]


def corpus(count: int = 80) -> tuple[list[str], list[str]]:
    draw = random.Random(2)
    return [" ".join(draw.choices(WORDS, k=draw.randint(0, 9))) for _ in range(count)], [
        " ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(count)
    ]


def test_resampled_statistics_are_sacrebleus() -> None:
    ours, theirs = corpus()
    total = np.sum([q.ngram_counts(h, r) for h, r in zip(ours, theirs, strict=True)], axis=0)
    assert float(q.chrf_score(total)) == pytest.approx(CHRF().corpus_score(ours, [theirs]).score)
    for h, r in zip(ours, theirs, strict=True):
        assert float(q.chrf_score(q.ngram_counts(h, r))) == pytest.approx(CHRF().corpus_score([h], [[r]]).score)


def test_chrf_interval_holds_the_point_and_narrows() -> None:
    ours, theirs = corpus()
    wide = q.chrf(ours[:20], theirs[:20], [str(i) for i in range(20)])
    narrow = q.chrf(ours * 4, theirs * 4, [str(i) for i in range(320)])
    assert wide["low"] < wide["chrf"] < wide["high"]
    assert narrow["high"] - narrow["low"] < wide["high"] - wide["low"]
    assert q.chrf([], [], [])["chrf"] is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("Certainly: It sorts.", "It sorts."),
        ("Of course, here: x", "here: x"),
        ("您好：它排序。", "它排序。"),
        ("好的，它排序。", "它排序。"),
        ("Certainly:", "Certainly:"),  # nothing would be left
        ("Suredly it sorts.", "Suredly it sorts."),
        ("It says: certainly.", "It says: certainly."),
    ],
)
def test_remove_opening(text: str, rest: str) -> None:
    assert q.remove_opening(text) == rest


def rows(*answers: tuple[str, str, str]) -> list[dict[str, Any]]:
    return [{"method": m, "item": f"q{i}", "cluster": f"q{i}", "response": a, "reference": r} for i, (m, a, r) in enumerate(answers)]


def test_an_opening_costs_raw_chrf_only() -> None:
    found = q.quality(rows(*(("m", "Certainly: Return the list.", "Return the list.") for _ in range(5))), ["m", "absent"], frequent="")
    assert found is not None and [m["method"] for m in found["methods"]] == ["m"]
    assert found["methods"][0]["without_opening"]["chrf"] == pytest.approx(100.0)
    assert found["methods"][0]["raw"]["chrf"] < 95 and found["methods"][0]["openings_removed"] == 5
    assert found["baseline"]["from"] == "training references" and "version:" in found["signature"]


def test_the_baseline_is_the_most_frequent_reference() -> None:
    assert q.most_frequent(["b", "a", "b", "a", ""]) == "a"
    found = q.quality(rows(("m", "x", "Return."), ("m", "y", "Return."), ("m", "z", "Sort it.")), ["m"])
    assert found is not None and found["baseline"]["answer"] == "Return." and found["baseline"]["from"] == "evaluated references"
    assert q.quality([{"method": "m", "item": "q", "response": "x", "reference": None}], ["m"]) is None
