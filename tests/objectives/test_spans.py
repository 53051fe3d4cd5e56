"""Span corruption: by hand, against a slow loop over tokens, and put together again."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from norma.base.errors import NormaError
from norma.objectives.spans import SHORTEST, SpanLengths, corrupt_spans, fitting, span_lengths

END, SENTINELS = 1, list(range(1000, 1100))
rates, means = st.floats(0.01, 0.9), st.floats(1.0, 10.0)


def test_lengths_by_hand() -> None:
    # T5's own: 568 raw tokens, 85 of them hidden in 28 spans, make sources of 512 and targets of 114 tokens.
    assert fitting(512) == SpanLengths(raw=568, hidden=85, spans=28)
    assert (fitting(512).source, fitting(512).target) == (512, 114)
    assert span_lengths(10, rate=0.3, mean=3.0) == SpanLengths(10, 3, 1)
    assert span_lengths(10, rate=0.5, mean=1.0) == SpanLengths(10, 5, 5)
    assert span_lengths(2) == SpanLengths(2, 1, 1), "one stays, one is hidden"


def test_spans_by_hand() -> None:
    class Cuts:
        def __init__(self) -> None:
            self.drawn = [[2], [0]]  # six that stay: 3 and 3; three that are hidden: 1 and 2

        def choice(self, count: int, size: int, replace: bool) -> np.ndarray:
            assert not replace and size == 1 and count == (5 if len(self.drawn) == 2 else 2)
            return np.array(self.drawn.pop(0))

    source, target = corrupt_spans(np.arange(10, 19), SpanLengths(9, 3, 2), Cuts(), sentinels=[7, 8, 9], end=END)  # type: ignore[arg-type]
    assert source.tolist() == [10, 11, 12, 7, 14, 15, 16, 8, END]
    assert target.tolist() == [7, 13, 8, 17, 18, END]


@given(source=st.integers(5, 700), rate=rates, mean=means)
@settings(max_examples=200, deadline=None)
def test_a_row_that_fits_is_the_longest_one(source: int, rate: float, mean: float) -> None:
    found = fitting(source, rate=rate, mean=mean)
    assert found.source == source
    planned = span_lengths(found.raw, rate=rate, mean=mean)
    assert planned.hidden == found.hidden and planned.spans - found.spans in (0, 1), "as asked for, but for one sentinel at most"
    assert span_lengths(found.raw + 1, rate=rate, mean=mean).source > source
    assert 1 <= found.spans <= min(found.hidden, found.raw - found.hidden)


def test_too_short_a_source_says_so() -> None:
    with pytest.raises(NormaError, match="at least 3"):
        fitting(2)
    with pytest.raises(ValueError, match="no span"):
        span_lengths(1)
    with pytest.raises(NormaError, match="28 spans in a row, but the tokenizer has 27"):
        corrupt_spans(np.arange(568), fitting(512), np.random.default_rng(0), sentinels=SENTINELS[:27], end=END)


@given(raw=st.integers(SHORTEST, 400), rate=rates, mean=means, seed=st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_source_and_target_hold_every_token_once_in_its_place(raw: int, rate: float, mean: float, seed: int) -> None:
    lengths = span_lengths(raw, rate=rate, mean=mean)
    if lengths.spans > len(SENTINELS):
        return
    ids = np.arange(2000, 2000 + raw)
    source, target = corrupt_spans(ids, lengths, np.random.default_rng(seed), sentinels=SENTINELS, end=END)
    assert (len(source), len(target)) == (lengths.source, lengths.target)
    assert source[-1] == target[-1] == END
    # A slow loop: where the source has a sentinel, what follows that sentinel in the target goes in.
    together: list[int] = []
    for token in source[:-1].tolist():
        if token not in SENTINELS:
            together.append(token)
            continue
        at = target.tolist().index(token) + 1
        while target[at] not in SENTINELS and target[at] != END:
            together.append(int(target[at]))
            at += 1
    assert together == ids.tolist()
    marks = [t for t in source.tolist() if t in SENTINELS]
    assert marks == SENTINELS[: lengths.spans] == [t for t in target.tolist() if t in SENTINELS]
    assert source[0] not in SENTINELS and source[-2] in SENTINELS


def test_every_layout_is_as_likely() -> None:
    lengths = SpanLengths(7, 3, 2)  # 4 that stay: 3 ways of two parts; 3 hidden: 2 ways
    random = np.random.default_rng(5)
    seen = Counter(tuple(corrupt_spans(np.arange(10, 17), lengths, random, sentinels=SENTINELS, end=END)[0].tolist()) for _ in range(3000))
    assert len(seen) == 6
    assert chisquare(list(seen.values())).pvalue > 1e-3
