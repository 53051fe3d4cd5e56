"""Streams by weight: exact shares, a bijection of each stream's numbers, nothing remembered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.text.mixture import BLOCK, Mixture, shares


def test_shares_by_hand() -> None:
    assert shares([1, 1, 1], 10) == [4, 3, 3]  # 3.33 each: the first of equal remainders goes up
    assert shares([0.7, 0.3], 1024) == [717, 307]  # 716.8 and 307.2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.05, 5), min_size=1, max_size=4), st.integers(0, 2**40), st.integers(1, 7))
def test_each_stream_counts_its_own_rows_without_a_gap(weights: list[float], seed: int, unit: int) -> None:
    mixture = Mixture(weights, seed=seed, unit=unit)
    rows = np.arange(2 * BLOCK * unit + 3 * unit)
    streams, numbers = mixture.rows(rows)
    for i, count in enumerate(mixture.counts):
        own = numbers[streams == i]
        assert own.tolist() == list(range(len(own))), "in order, each once"
        assert (streams[: BLOCK * unit] == i).sum() == count * unit
    later = np.arange(BLOCK * unit + 5, BLOCK * unit + 25)
    again = Mixture(weights, seed=seed, unit=unit).rows(later)
    assert (again[0] == streams[later]).all()
    assert (again[1] == numbers[later]).all()


def test_units_stay_together() -> None:
    streams, _ = Mixture([1, 1], seed=0, unit=8).rows(np.arange(800))
    assert (streams.reshape(-1, 8) == streams.reshape(-1, 8)[:, :1]).all()


def test_another_seed_is_another_order() -> None:
    rows = np.arange(BLOCK)
    assert (Mixture([1, 1], seed=0).rows(rows)[0] != Mixture([1, 1], seed=1).rows(rows)[0]).any()


def test_a_weight_too_small_to_be_met_is_refused() -> None:
    with pytest.raises(NormaError, match="too small"):
        Mixture([1, 1e-5], seed=0)
