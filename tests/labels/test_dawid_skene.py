"""Dawid and Skene's own data, a slow EM written from the paper's equations, and what every EM must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.labels.dawid_skene import dawid_skene

# Dawid and Skene (1979), table 1: 45 patients; observer 1 marked three times, the others once. "112 2 1 2 2" is patient 3.
TABLE_1 = (
    "111 1 1 1 1;333 4 3 3 4;112 2 1 2 2;222 3 1 2 1;222 3 2 2 2;222 3 3 2 2;122 2 1 1 1;333 3 4 3 3;222 2 2 2 3;232 2 2 2 3;"
    "444 4 4 4 4;222 3 3 4 3;111 1 1 1 1;222 3 2 1 2;121 1 1 1 1;111 2 1 1 1;111 1 1 1 1;111 1 1 1 1;222 2 2 2 1;222 1 3 2 2;"
    "222 2 2 2 2;222 2 2 2 1;222 3 2 2 2;221 2 2 2 2;111 1 1 1 1;111 1 1 1 1;232 2 2 2 2;111 1 1 1 1;111 1 1 1 1;112 1 1 2 1;"
    "111 1 1 1 1;333 3 2 3 3;111 1 1 1 1;222 2 2 2 2;222 3 2 3 2;433 4 3 4 3;221 2 2 3 2;232 3 2 3 3;333 3 4 3 2;111 1 1 1 1;"
    "111 1 1 1 1;121 2 1 1 1;232 2 2 2 2;121 1 1 1 1;222 2 2 2 2"
)
MARKS = [(i, j, int(c) - 1) for i, row in enumerate(TABLE_1.split(";")) for j, cell in enumerate(row.split()) for c in cell]


def test_the_anaesthetists() -> None:
    """The paper's table 2: class rates .40 .42 .11 .07, and observer 1's matrix."""
    items, people, marks = zip(*MARKS, strict=True)
    found = dawid_skene(items, people, marks, 4)
    assert found.converged
    assert found.prevalence == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.005)
    assert found.confusion[0, :2] == pytest.approx(np.array([[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0]]), abs=0.006)
    assert found.confusion[1, 1] == pytest.approx([0.05, 0.63, 0.31, 0], abs=0.006)
    assert found.confusion[:, 0, 0] == pytest.approx([0.89, 0.83, 1.0, 0.94, 1.0], abs=0.006)
    assert found.classes.argmax(axis=1)[[0, 1, 2, 3, 11, 35]].tolist() == [0, 3, 1, 1, 2, 3]


def _slow(marks: list[tuple[int, int, int]], classes: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[float]]:
    """Loops over equations 3.1, 2.3, 2.4, 2.5 and 2.7, in that order."""
    n, j = max(i for i, _, _ in marks) + 1, max(p for _, p, _ in marks) + 1
    times = np.zeros((n, j, classes))
    for i, p, m in marks:
        times[i, p, m] += 1
    truth = times.sum(axis=1) / times.sum(axis=(1, 2))[:, None]
    likelihoods = []
    for _ in range(steps):
        prevalence = truth.sum(axis=0) / n
        confusion = np.zeros((j, classes, classes))
        for p in range(j):
            for k in range(classes):
                row = [sum(truth[i, k] * times[i, p, m] for i in range(n)) for m in range(classes)]
                confusion[p, k] = np.array(row) / sum(row) if sum(row) else 1 / classes
        total = 0.0
        for i in range(n):
            joint = [prevalence[k] * math.prod(np.ravel(confusion[:, k] ** times[i])) for k in range(classes)]
            total += math.log(sum(joint))
            truth[i] = np.array(joint) / sum(joint)
        likelihoods.append(total)
    return truth, prevalence, confusion, likelihoods


def test_beside_the_slow_loop() -> None:
    items, people, marks = zip(*MARKS, strict=True)
    found = dawid_skene(items, people, marks, 4)
    truth, prevalence, confusion, likelihoods = _slow(MARKS, 4, found.iterations)
    assert found.classes == pytest.approx(truth, abs=1e-9)
    assert found.prevalence == pytest.approx(prevalence, abs=1e-9)
    assert found.confusion == pytest.approx(confusion, abs=1e-9)
    assert found.log_likelihood == pytest.approx(likelihoods[-1])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 2)), min_size=6, max_size=40), st.sampled_from([0.0, 0.5]))
def test_the_likelihood_never_falls(marks: list[tuple[int, int, int]], smoothing: float) -> None:
    marks = [*((i, 0, i % 3) for i in range(6)), *marks]  # every item has a mark
    items, people, given_ = zip(*marks, strict=True)
    before = -math.inf
    for steps in (1, 2, 3, 5, 9):
        found = dawid_skene(items, people, given_, 3, smoothing=smoothing, max_iterations=steps, tolerance=-1e9)
        objective = found.log_likelihood + (smoothing * float(np.log(found.confusion).sum()) if smoothing else 0.0)
        assert objective >= before - 1e-9
        before = objective
        assert found.classes.sum(axis=1) == pytest.approx(np.ones(6))
        assert found.confusion.sum(axis=2) == pytest.approx(np.ones((found.confusion.shape[0], 3)))


def test_it_finds_who_errs_where_a_majority_cannot() -> None:
    """Two good annotators and three careless ones: the estimate is right more often than the majority, and the matrices are close."""
    random = np.random.default_rng(4)
    truth = random.integers(0, 2, 600)
    right = np.array([0.95, 0.93, 0.55, 0.55, 0.55])
    marks = np.where(random.random((600, 5)) < right, truth[:, None], 1 - truth[:, None])
    items, people = np.nonzero(np.ones_like(marks))
    found = dawid_skene(items, people, marks.ravel(), 2)
    majority = ((marks.mean(axis=1) > 0.5) == truth).mean()
    estimated = (found.classes.argmax(axis=1) == truth).mean()
    assert estimated > majority + 0.03
    assert found.confusion[:, [0, 1], [0, 1]].mean(axis=1) == pytest.approx(right, abs=0.05)


def test_starts_are_seeded_and_never_worse() -> None:
    random = np.random.default_rng(9)
    items, people = np.nonzero(np.ones((30, 3)))
    marks = random.integers(0, 3, 90)
    one = dawid_skene(items, people, marks, 3)
    many = dawid_skene(items, people, marks, 3, starts=6, seed=5)
    assert many.log_likelihood >= one.log_likelihood
    assert many.classes.tolist() == dawid_skene(items, people, marks, 3, starts=6, seed=5).classes.tolist()


def test_bad_marks() -> None:
    for arguments in (([0], [0], [2]), ([0, 2], [0, 0], [0, 1]), ([], [], []), ([0], [0, 1], [0])):
        with pytest.raises(ValueError, match=r"marks|mark|lists"):
            dawid_skene(*arguments, 2)
