"""Fill in the middle: by hand, against slices of lists, and put together again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from norma.base.random import keyed
from norma.objectives.infilling import ADDED, SHORTEST, Sentinels, fill_in_the_middle
from norma.text.words import SENTENCE, SPECIAL, WORD

BOS, EOS, PRE, SUF, MID = 1, 2, 3, 4, 5
SENTINELS = Sentinels(PRE, SUF, MID)


class Script:
    def __init__(self, *draws: list[float]) -> None:
        self.draws = [np.array(d) for d in draws]

    def random(self, size: int) -> np.ndarray:
        assert len(self.draws[0]) == size
        return self.draws.pop(0)


def script(*draws: list[float]) -> Any:
    return Script(*draws)


def document(plain: int, begin: int = 1, end: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """[BOS] 10 11 12 ... [EOS]; even ids begin words."""
    ids = np.array([BOS] * begin + [*range(10, 10 + plain)] + [EOS] * end)
    return ids, np.where(ids < 10, SPECIAL, np.where(ids % 2 == 0, WORD, 0)).astype(np.uint8)


def test_by_hand() -> None:
    """Six tokens have seven gaps: .3 * 7 is gap 2, .8 * 7 gap 5, in whichever order they come."""
    ids, flags = document(6)
    out, moved = fill_in_the_middle(ids, flags, script([0.4, 0.6], [0.8, 0.3]), sentinels=SENTINELS)
    assert out.tolist() == [BOS, PRE, 10, 11, SUF, 15, MID, 12, 13, 14, EOS], "PSM"
    assert moved.tolist() == [SPECIAL, SPECIAL, WORD, 0, SPECIAL, 0, SPECIAL, WORD, 0, WORD, SPECIAL]
    out, moved = fill_in_the_middle(ids, flags, script([0.4, 0.4], [0.3, 0.8]), sentinels=SENTINELS)
    assert out.tolist() == [BOS, PRE, SUF, 15, MID, 10, 11, 12, 13, 14, EOS], "SPM"
    assert moved.tolist() == [SPECIAL, SPECIAL, SPECIAL, 0, SPECIAL, WORD, 0, WORD, 0, WORD, SPECIAL]
    out, moved = fill_in_the_middle(ids, flags, script([0.5, 0.0], [0.3, 0.8]), sentinels=SENTINELS)
    assert out.tolist() == ids.tolist() and moved.tolist() == flags.tolist() and out is not ids, "by chance as it was"
    out, _ = fill_in_the_middle(*document(6, 0, 0), script([0.0, 0.9], [0.0, 0.999]), sentinels=SENTINELS)
    assert out.tolist() == [PRE, SUF, MID, 10, 11, 12, 13, 14, 15], "the outermost gaps are drawn too"


def together(ids: list[int], end: int) -> list[int]:
    """The original, read off the sentinels; the last ``end`` tokens stayed where they were."""
    body, last = ids[: len(ids) - end], ids[len(ids) - end :]
    pre, suf, mid = body.index(PRE), body.index(SUF), body.index(MID)
    return body[:pre] + body[pre + 1 : suf] + body[mid + 1 :] + body[suf + 1 : mid] + last


@given(st.integers(0, 40), st.integers(0, 2), st.integers(0, 2), st.integers(0, 2**40), st.sampled_from([0.0, 0.5, 1.0]))
@settings(max_examples=400, deadline=None)
def test_against_slices_and_back(plain: int, begin: int, end: int, seed: int, suffix_first: float) -> None:
    ids, flags = document(plain, begin, end)
    before = ids.copy(), flags.copy()
    out, moved = fill_in_the_middle(ids, flags, keyed(seed, 0), sentinels=SENTINELS, rate=1.0, suffix_first=suffix_first)
    again, _ = fill_in_the_middle(ids, flags, keyed(seed, 0), sentinels=SENTINELS, rate=1.0, suffix_first=suffix_first)
    assert np.array_equal(out, again) and np.array_equal(ids, before[0]) and np.array_equal(flags, before[1])
    assert out.dtype == np.int64 and moved.dtype == np.uint8
    if plain < SHORTEST:
        assert np.array_equal(out, ids) and np.array_equal(moved, flags), "too short"
        return
    assert Counter(out.tolist()) == Counter([*ids.tolist(), PRE, SUF, MID]) and len(out) == len(ids) + ADDED
    assert together(out.tolist(), end) == ids.tolist()
    assert out[:begin].tolist() == [BOS] * begin and out[len(out) - end :].tolist() == [EOS] * end
    assert moved.tolist() == [SPECIAL if i < 10 else WORD if i % 2 == 0 else 0 for i in out.tolist()], "flags go with their tokens"
    random, n = keyed(seed, 0), plain
    spm = random.random(2)[1] < suffix_first
    i, j = sorted(int(u * (n + 1)) for u in random.random(2))
    text = [*range(10, 10 + n)]
    tail = [*text[:i], *text[i:j]]
    body = [PRE, SUF, *text[j:], MID, *tail] if spm else [PRE, *text[:i], SUF, *text[j:], MID, *text[i:j]]
    assert out.tolist() == [BOS] * begin + body + [EOS] * end


def test_special_tokens_inside_keep_a_document_as_it_is() -> None:
    ids, flags = document(9)
    flags[5] |= SPECIAL
    out, moved = fill_in_the_middle(ids, flags, keyed(0, 0), sentinels=SENTINELS, rate=1.0)
    assert np.array_equal(out, ids) and np.array_equal(moved, flags)
    flags[5] = SENTENCE | WORD
    assert len(fill_in_the_middle(ids, flags, keyed(0, 0), sentinels=SENTINELS, rate=1.0)[0]) == len(ids) + ADDED


@pytest.mark.parametrize(("rate", "suffix_first"), [(0.5, 0.5), (0.9, 0.2)])
def test_counts_and_cuts_over_many_keys(rate: float, suffix_first: float) -> None:
    ids, flags = document(5)
    n, changed, spm, cuts = 4000, 0, 0, Counter[tuple[int, int]]()
    for row in range(n):
        out = fill_in_the_middle(ids, flags, keyed(1, 2, row), sentinels=SENTINELS, rate=rate, suffix_first=suffix_first)[0].tolist()
        if len(out) == len(ids):
            assert out == ids.tolist()
            continue
        changed += 1
        pre, suf, mid = out.index(PRE), out.index(SUF), out.index(MID)
        if suf == pre + 1 and suffix_first == 0.5:
            spm += 1  # or PSM with an empty prefix: 11 of 36 pairs of gaps have one
        j = 5 - (mid - suf - 1)
        if suf > pre + 1:
            cuts[suf - pre - 1, j] += 1
    low, high = binom.interval(1 - 1e-6, n, rate)
    assert low <= changed <= high
    if suffix_first == 0.5:
        low, high = binom.interval(1 - 1e-6, changed, 0.5 + 0.5 * 11 / 36)
        assert low <= spm <= high
    # Two even draws from six gaps: (i, j) comes twice as often as (i, i). Those with i > 0 can be read off.
    pairs = [(i, j) for i in range(1, 6) for j in range(i, 6)]
    weights = np.array([1.0 if i == j else 2.0 for i, j in pairs])
    found = [cuts[p] for p in pairs]
    assert sum(found) == cuts.total() and chisquare(found, weights / weights.sum() * sum(found)).pvalue > 1e-4
