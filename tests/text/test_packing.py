"""Packing: nothing lost, nothing split, and a batch is a pure function of its number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.text.packing import IGNORE, Batches, Rows, pack


def rows_of(lengths: list[int]) -> Rows:
    """Row i holds i * 1000, i * 1000 + 1, ...; every token is trained."""
    return Rows.build((([i * 1000 + j for j in range(n)], [True] * n) for i, n in enumerate(lengths)), 1000)


def test_by_hand() -> None:
    rows = Rows.build([([1, 2, 3], [False, False, True]), ([4, 5], [True, True]), ([6, 7, 8, 9], [False, True, False, True])], 8)
    batch = Batches(rows, length=8, size=2, seed=0, pad=99).assemble([[0, 1], [2]])
    X = IGNORE
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5, 99, 99, 99], [6, 7, 8, 9, 99, 99, 99, 99]]
    assert batch.targets.tolist() == [[X, 3, X, 5, X, X, X, X], [7, X, 9, X, X, X, X, X]]
    assert batch.documents.tolist() == [[1, 1, 1, 2, 2, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0, 0, 0], [0, 1, 2, 3, 0, 0, 0, 0]]


def test_long_rows_are_cut_so_that_every_token_is_predicted_once() -> None:
    rows = Rows.build([(list(range(10)), [True] * 10), ([50], [True]), ([], [])], 4)
    pieces = [rows.tokens[a:b].tolist() for a, b in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)]
    assert pieces == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9], [50]]
    batches = Batches(rows, length=4, size=1, seed=0, pad=0)
    targets = batches.assemble(batches.bins(0)).targets
    assert sorted(targets[targets != IGNORE].tolist()) == list(range(1, 10))
    with pytest.raises(NormaError, match="no rows"):
        Rows.build([], 4)


@given(st.lists(st.integers(1, 16), min_size=1, max_size=80), st.integers(0, 5), st.integers(1, 4), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_an_epoch_holds_every_row_once_and_whole(lengths: list[int], seed: int, size: int, epoch: int) -> None:
    rows = rows_of(lengths)
    batches = Batches(rows, length=16, size=size, seed=seed, pad=0)
    bins = batches.bins(epoch)
    assert sorted(r for b in bins for r in b) == list(range(len(lengths)))
    assert all(sum(lengths[r] for r in b) <= 16 for b in bins)
    batch = batches.assemble(bins)
    for b, members in enumerate(bins):
        for number, row in enumerate(members, 1):
            at = batch.documents[b] == number
            assert batch.ids[b, at].tolist() == [row * 1000 + j for j in range(lengths[row])]
            assert batch.positions[b, at].tolist() == list(range(lengths[row]))
            assert batch.targets[b, at].tolist() == [row * 1000 + j for j in range(1, lengths[row])] + [IGNORE]
        assert (batch.targets[b, batch.documents[b] == 0] == IGNORE).all()


def test_a_batch_is_a_pure_function_of_its_number() -> None:
    rows = rows_of([3, 9, 4, 7, 2, 5] * 20)
    first, other = (Batches(rows, length=16, size=3, seed=4, pad=0) for _ in range(2))
    order = [5, 60, 0, 5, 31, 60]
    there = {n: first[n].ids.tolist() for n in range(62)}
    assert all(other[n].ids.tolist() == there[n] for n in order)
    assert there[0] != Batches(rows, length=16, size=3, seed=5, pad=0)[0].ids.tolist()
    assert there[0] != there[first.steps_per_epoch], "every epoch has an order of its own"
    seen = [r for n in range(first.steps_per_epoch) for r in np.unique(np.array(there[n]) // 1000).tolist()]
    assert len(set(seen)) > 0.95 * len(rows), "an epoch's batches hold its rows, but for what does not fill a last batch"


def test_fewer_rows_than_a_batch_come_again() -> None:
    batch = Batches(rows_of([16, 16]), length=16, size=5, seed=0, pad=0)[0]
    assert batch.ids.shape == (5, 16) and (batch.documents == 1).all()


def test_little_is_wasted() -> None:
    lengths = np.random.default_rng(0).integers(10, 120, 2000).tolist()
    assert Batches(rows_of(lengths), length=256, size=8, seed=0, pad=0).waste() < 0.03
    assert Batches(rows_of([16] * 8), length=16, size=1, seed=0, pad=0).waste() == 0


def test_a_row_that_fits_no_bin_is_an_error() -> None:
    with pytest.raises(ValueError, match="row 1 has 9 tokens"):
        pack(np.array([3, 9]), 8, np.array([0, 1]))


def test_taking_joining_and_files(tmp_path: Path) -> None:
    rows = rows_of([3, 1, 4])
    taken = rows.take(np.array([2, 0, 2]))
    assert taken.tokens.tolist() == [2000, 2001, 2002, 2003, 0, 1, 2, 2000, 2001, 2002, 2003]
    joined = Rows.join([rows, taken])
    assert joined.lengths().tolist() == [3, 1, 4, 4, 3, 4] and joined.take(np.array([3])).tokens.tolist() == [2000, 2001, 2002, 2003]
    joined.save(tmp_path / "rows.npz")
    back = Rows.load(tmp_path / "rows.npz")
    assert all((getattr(back, n) == getattr(joined, n)).all() for n in ("tokens", "trained", "offsets"))
