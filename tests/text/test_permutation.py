"""The keyed permutation: one to one, evenly spread, and nothing stored."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from norma.text.permutation import LARGEST, Permutation

KEYS = st.integers(0, 2**128)


def test_one_to_one_for_every_small_n() -> None:
    for n in range(1, 3001):
        assert np.array_equal(np.sort(Permutation(n, n % 5)[np.arange(n)]), np.arange(n)), n


@given(st.integers(1, 3000), KEYS)
@settings(max_examples=200, deadline=None)
def test_one_to_one_with_its_inverse(n: int, key: int) -> None:
    permutation = Permutation(n, key)
    places = permutation[np.arange(n)]
    assert np.array_equal(np.sort(places), np.arange(n))
    assert np.array_equal(permutation.inverse(places), np.arange(n))
    assert np.array_equal(permutation[permutation.inverse(np.arange(n))], np.arange(n))


@given(st.integers(1, LARGEST), KEYS, st.data())
@settings(max_examples=200, deadline=None)
def test_inverse_at_any_size(n: int, key: int, data: st.DataObject) -> None:
    permutation, index = Permutation(n, key), data.draw(st.integers(0, n - 1))
    place = permutation[index]
    assert isinstance(place, int) and 0 <= place < n and permutation.inverse(place) == index
    assert permutation[np.array([[index]])].tolist() == [[place]], "an array gives what its numbers give, in its shape"


@given(st.integers(20, 3000), KEYS, KEYS)
@settings(max_examples=100, deadline=None)
def test_other_keys_give_other_orders(n: int, one: int, other: int) -> None:
    first, second = Permutation(n, one)[np.arange(n)], Permutation(n, other)[np.arange(n)]
    # Two random orders share one place on average; 12 or more happen once in 10^9.
    assert (one == other) == np.array_equal(first, second) and (one == other or (first == second).sum() < 12)


@pytest.mark.parametrize("n", [2, 3, 5, 16, 37, 100])
def test_every_place_is_equally_likely(n: int) -> None:
    places = np.array([Permutation(n, key)[np.array([0, n // 2, n - 1])] for key in range(60 * n)])
    for column in places.T:
        assert chisquare(np.bincount(column, minlength=n)).pvalue > 1e-4


@pytest.mark.parametrize(("n", "orders"), [(3, 6), (5, 120), (6, 720)])
def test_all_orders_are_equally_likely(n: int, orders: int) -> None:
    _, counts = np.unique([Permutation(n, 10**6 + key)[np.arange(n)] for key in range(8000)], axis=0, return_counts=True)
    assert len(counts) == orders and chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("n", [10**5 + 3, 10**12])
def test_neighbours_are_scattered(n: int) -> None:
    places = Permutation(n, 7)[np.arange(100_000)]
    assert chisquare(np.bincount(places * 64 // n, minlength=64)).pvalue > 1e-4
    # The step from one place to the next, modulo n, is even too: consecutive places know nothing of each other.
    steps = np.diff(places) % n
    assert chisquare(np.bincount(steps * 64 // n, minlength=64)).pvalue > 1e-4
    assert abs(np.corrcoef(np.arange(100_000), places)[0, 1]) < 0.015


def test_nothing_is_stored() -> None:
    np.random.SeedSequence(0).generate_state(1)
    tracemalloc.start()
    permutation = Permutation(10**12, 5)
    assert permutation.inverse(permutation[10**12 - 1]) == 10**12 - 1 and len(permutation) == 10**12
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_the_order_is_the_same_on_every_machine() -> None:
    """A resumed run depends on it. The numbers were computed once with Python's own integers, by ``slow`` below."""
    assert [Permutation(10, 3)[i] for i in range(10)] == [slow(10, 3, i) for i in range(10)] == FIXED


FIXED = [4, 5, 8, 7, 0, 9, 6, 3, 2, 1]


def slow(n: int, key: int, index: int) -> int:
    """The rounds as the two papers have them, in plain integers."""
    a = next(k for k in range(1, n + 1) if k * k >= n)
    b = next(k for k in range(1, n + 1) if a * k >= n)
    keys = [int(k) for k in np.random.SeedSequence(key).generate_state(12, np.uint64)]
    place = index
    while True:
        halves = [place // b, place % b]
        for number in range(12):
            z = (halves[1 - number % 2] + keys[number]) % 2**64
            z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
            z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
            z ^= z >> 31
            halves[number % 2] = (halves[number % 2] + z) % (a, b)[number % 2]
        place = halves[0] * b + halves[1]
        if place < n:
            return place


@given(st.integers(1, 10**6), KEYS, st.data())
@settings(max_examples=50, deadline=None)
def test_equal_to_the_slow_one(n: int, key: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, n - 1))
    assert Permutation(n, key)[index] == slow(n, key, index)


def test_what_is_refused() -> None:
    for n in (0, -1, LARGEST + 1):
        with pytest.raises(ValueError, match="n must be"):
            Permutation(n, 0)
    with pytest.raises(ValueError):
        Permutation(5, -1)
    for place in (-1, 5):
        with pytest.raises(IndexError, match=r"outside 0 \.\. 4"):
            Permutation(5, 0)[place]
    with pytest.raises(TypeError):
        Permutation(5, 0)[np.array([0.5])]  # type: ignore[index]
    assert Permutation(5, 0)[np.array([], dtype=np.int64)].shape == (0,)
