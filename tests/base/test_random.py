"""The keyed generator: equal keys, equal draws; other keys, other draws; and the words are those of the paper's cipher."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from norma.base.random import keyed

WORD = st.integers(0, 2**64 - 1)


def philox(key: list[int], counter: list[int]) -> list[int]:
    """One block of Philox4x64-10 in plain integers, from Salmon et al. 2011, section 4.3 and its constants."""
    k, (a, b, c, d), mask = list(key), counter, 2**64 - 1
    for number in range(10):
        if number:
            k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
        left, right = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (right >> 64) ^ b ^ k[0], right & mask, (left >> 64) ^ d ^ k[1], left & mask
    return [a, b, c, d]


@given(WORD, WORD, WORD, st.sampled_from(["", "masking", "顺序"]))
@settings(max_examples=100, deadline=None)
def test_the_words_are_the_papers(seed: int, step: int, row: int, use: str) -> None:
    name = int.from_bytes(blake2b(use.encode(), digest_size=8).digest(), "little") if use else 0
    expected = philox([seed, step], [1, 0, row, name]) + philox([seed, step], [2, 0, row, name])  # NumPy counts up before each block
    drawn = keyed(seed, step, row, use).bit_generator.random_raw(8)
    assert np.asarray(drawn).tolist() == expected


KEYS = st.tuples(WORD, WORD, WORD, st.sampled_from(["", "a", "b"]))


@given(KEYS, KEYS)
@settings(max_examples=200, deadline=None)
def test_equal_keys_and_only_they_draw_alike(one: tuple[int, int, int, str], other: tuple[int, int, int, str]) -> None:
    first, again, second = keyed(*one).random(8), keyed(*one).random(8), keyed(*other).random(8)
    assert first.tolist() == again.tolist()
    assert (one == other) == (first.tolist() == second.tolist())


def test_a_step_further_in_any_place_is_another_stream() -> None:
    """The arguments do not flow into each other: (1, 2, 3) is not (2, 1, 3), nor (1, 3, 2)."""
    cube = [(seed, step, row, use) for seed in range(6) for step in range(6) for row in range(6) for use in ("", "x", "y")]
    assert len({tuple(keyed(*key).integers(2**63, size=4).tolist()) for key in cube}) == len(cube)


def test_first_draws_over_neighbouring_keys_are_even() -> None:
    """Each key is used for a few draws only, so evenness must hold ACROSS keys."""
    table = np.array([[keyed(3, step, row).random() for row in range(64)] for step in range(64)])
    assert chisquare(np.bincount((table.ravel() * 32).astype(int), minlength=32)).pvalue > 1e-4
    for a, b in ((table[:-1], table[1:]), (table[:, :-1], table[:, 1:])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.065  # 4 standard deviations of 4,032 pairs


@pytest.mark.parametrize("arguments", [(-1, 0, 0), (0, 2**64, 0), (0, 0, -5)])
def test_numbers_outside_the_range_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"must be 0 to 2\^64 - 1"):
        keyed(*arguments)
