"""Queues: what each takes, and that rates from the uniform part alone are not biased, by simulation."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.labels import Label
from norma.labels.audit import audited, horvitz_thompson
from norma.labels.consensus import consensus
from norma.labels.diversity import farthest_first, trigram_vectors
from norma.labels.queues import Candidate, candidates, draw
from norma.spec.types import Status


def label(item: str, verdict: str, **more: object) -> Label:
    return Label(**{"item": item, "response": f"answer {item}", "rule": "r", "rule_hash": "h", "annotator": "a", "verdict": verdict} | more)


def population(n: int = 400, seed: int = 0) -> list[Candidate]:
    values = random.Random(seed)
    return [
        Candidate(f"i{k}", f"answer number {k} " + "word " * values.randint(0, 9), "r", violation=values.random(), disagreement=0.0)
        for k in range(n)
    ]


def test_shares_and_reasons() -> None:
    drawn = draw(population(), 100, seed=1)
    assert Counter(d.queue for d in drawn) == {"uniform": 30, "uncertain": 40, "rare": 20, "diverse": 10}
    assert [d.place for d in drawn] == list(range(100)) and len({d.answer for d in drawn}) == 100
    assert {d.inclusion_probability for d in drawn if d.queue == "uniform"} == {30 / 400}
    assert {d.inclusion_probability for d in drawn if d.queue != "uniform"} == {None}
    predicted = {c.item: c.violation or 0.0 for c in population()}
    by_queue = {q: [predicted[d.item] for d in drawn if d.queue == q] for q in ("uniform", "uncertain", "rare")}
    left = [p for item, p in predicted.items() if item not in {d.item for d in drawn}]
    assert max(abs(p - 0.5) for p in by_queue["uncertain"]) <= min(abs(p - 0.5) for p in left)
    assert min(by_queue["rare"]) >= max(left)
    assert [d.queue for d in drawn] != sorted(d.queue for d in drawn)  # shown mixed, so that nobody can tell which is which


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 60), st.integers(0, 50), st.integers(0, 3))
def test_equal_inputs_equal_draws_and_sizes_add_up(n: int, count: int, seed: int) -> None:
    found = population(n)
    drawn = draw(found, count, seed=seed)
    assert drawn == draw(found[::-1], count, seed=seed)
    assert len(drawn) == len({d.answer for d in drawn}) == min(n, count)
    assert sum(d.queue == "uniform" for d in drawn) <= math.ceil(0.3 * count)


def test_predictions_cannot_bend_the_uniform_queue() -> None:
    found = population()
    bent = [replace(c, violation=1 - (c.violation or 0), disagreement=1.0, marked=k % 2 == 0) for k, c in enumerate(found)]
    uniform = [[d.item for d in draw(these, 100, seed=3) if d.queue == "uniform"] for these in (found, bent)]
    assert uniform[0] == uniform[1] or sorted(uniform[0]) == sorted(uniform[1])
    marked = {c.item for c in bent if c.marked}
    assert not marked & {d.item for d in draw(bent, 100, seed=3) if d.queue != "uniform"}


def test_every_candidate_has_the_same_chance() -> None:
    """Over seeds each of 20 is in the uniform queue 6 times of 20; a chi-square far below what one biased candidate would give."""
    counts = Counter(d.item for seed in range(400) for d in draw(population(20), 20, seed=seed) if d.queue == "uniform")
    assert sum(counts.values()) == 400 * 6
    statistic = sum((counts[f"i{k}"] - 120) ** 2 / (120 * 0.7) for k in range(20)) * 19 / 20
    assert statistic < 43.8  # the .999 quantile of chi-square with 19 degrees of freedom


def test_a_second_draw_goes_on_where_the_first_stopped() -> None:
    found = population(100)
    first = draw(found, 40, seed=5)
    uniform = {d.answer for d in first if d.queue == "uniform"}
    second = draw(found, 40, seed=5, audited=uniform)
    assert not uniform & {d.answer for d in second}
    assert {d.inclusion_probability for d in second if d.queue == "uniform"} == {12 / 88}


def test_rare_rules_first() -> None:
    """Violations predicted at .9 of a rule that is nearly always kept come before those of a rule that is often broken."""
    common = [Candidate(f"c{k}", f"c{k}", "common", violation=0.9 if k % 2 else 0.1) for k in range(100)]
    rare = [Candidate(f"r{k}", f"r{k}", "rare", violation=0.9 if k < 5 else 0.01) for k in range(100)]
    drawn = draw([*common, *rare], 5, shares={"rare": 1.0})
    assert {d.item for d in drawn} == {f"r{k}" for k in range(5)}


def test_candidates_of_marks() -> None:
    marks = [
        label("a", "compliant", source="checker", annotator="checker:x", score=0.75),
        label("a", "violation", source="judge", annotator="judge:y"),
        label("b", "compliant"), label("b", "compliant", annotator="b"), label("b", "violation", annotator="c"),
        label("c", "unsure"),
    ]  # fmt: skip
    a, b, c = candidates(marks, {"a": "doc"})
    assert (a.violation, a.disagreement, a.marked, a.cluster) == ((0.25 + 1) / 2, 1.0, False, "doc")
    assert (b.violation, b.marked, b.cluster) == (None, True, "b") and b.disagreement == pytest.approx(2 / 3)
    assert (c.violation, c.disagreement, c.marked) == (None, 0.0, True)


def test_bad_shares() -> None:
    for shares in ({"uniform": 0.5}, {"uniform": 2.0, "rare": -1.0}, {"odd": 1.0}):
        with pytest.raises(NormaError, match=r"shares|unknown queue"):
            draw(population(5), 2, shares=shares)


def test_farthest_first() -> None:
    texts = ["the cat sat on the mat", "the cat sat on a mat", "请回答问题时保持礼貌", "the cat sat on the mat!"]
    assert farthest_first(texts, 2) == [0, 2]
    assert farthest_first(texts, 3, seen=["请回答问题时保持礼貌。"])[0] in (0, 1, 3)
    assert farthest_first(texts, 9)[:2] == [0, 2] and sorted(farthest_first(texts, 9)) == [0, 1, 2, 3]
    assert farthest_first([], 3) == [] and farthest_first(["", "a"], 2) == [0, 1]
    rows = trigram_vectors(["abab", "xyz"])
    assert np.asarray(rows.multiply(rows).sum(axis=1)).ravel() == pytest.approx([1, 1])


def test_consensus() -> None:
    assert consensus([]) is Status.UNSURE
    assert consensus([label("a", "violation"), label("a", "unsure"), label("a", "error")]) is Status.VIOLATION
    assert consensus([label("a", "violation"), label("a", "compliant")]) is Status.UNSURE
    assert consensus([label("a", "violation"), label("a", "violation"), label("a", "compliant", gold=True)]) is Status.COMPLIANT


def test_horvitz_thompson_by_hand() -> None:
    """Four answers of chances 1/2, 1/2, 1/4, 1/4 stand for 2, 2, 4, 4: kept 2 + 4 of the 8 that apply; one has no mark."""
    found = horvitz_thompson([1, 0, 1, None], [0.5, 0.5, 0.25, 0.25], list("abcd"))
    assert (found.rate, found.total, found.marked, found.drawn) == (6 / 8, 8, 4, 4)
    found = horvitz_thompson([1, 0, 1, None], [0.5, 0.5, 0.25, 0.25], list("abcd"), unmarked=[False, False, False, True])
    assert (found.rate, found.worst, found.best, found.marked) == (6 / 8, 6 / 12, 10 / 12, 3)
    nothing = horvitz_thompson([None], [0.5], ["a"], unmarked=[True])
    assert (nothing.rate, nothing.low, nothing.worst, nothing.best) == (None, None, 0.0, 1.0)


def test_the_audit_stream_is_not_biased_and_the_whole_is() -> None:
    """600 answers of 200 prompts, 25% broken, predictions that know something; the queue of 120, 300 times over."""
    values = random.Random(8)
    broken = {f"p{k}.{j}": values.random() < (0.6 if k < 50 else 0.13) for k in range(200) for j in range(3)}
    truth = 1 - sum(broken.values()) / 600
    found = [
        Candidate(item, item, "r", cluster=item.split(".")[0], violation=min(1, max(0, 0.5 * bad + 0.25 + values.gauss(0, 0.15))))
        for item, bad in broken.items()
    ]
    shares = {"uniform": 0.5, "uncertain": 0.3, "rare": 0.2}
    rates, naive, covered = [], [], 0
    for seed in range(150):
        first = draw(found, 120, seed=seed, shares=shares)
        second = draw(found, 120, seed=seed + 1000, shares=shares, audited={d.answer for d in first if d.queue == "uniform"})
        drawn = [*first, *second]
        marks = [
            Label(d.item, d.response, "r", "", "ann", "violation" if broken[d.item] else "compliant")
            for d in {d.answer: d for d in drawn}.values()
        ]
        result = audited(drawn, marks)
        assert result.rate is not None and result.low is not None and result.high is not None and result.drawn == 120
        rates.append(result.rate)
        naive.append(sum(m.verdict == "compliant" for m in marks) / len(marks))
        covered += result.low <= truth <= result.high
    error = np.std(rates) / math.sqrt(len(rates))
    assert abs(np.mean(rates) - truth) < 3.5 * error
    assert abs(np.mean(naive) - truth) > 20 * error  # marks of all queues say how bad the chosen answers are, not the model
    assert covered / 150 >= 0.92
