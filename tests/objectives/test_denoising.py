"""Denoising: by hand, and a slow reading of the noised document that finds every token that stayed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.objectives.denoising import Noise, denoise, infill_text, shuffle_sentences
from norma.text.words import SENTENCE, SPECIAL, WORD

BOS, EOS, MASK = 1, 2, 3


class Script:
    """Draws that are written down."""

    def __init__(self, **draws: list[Any]) -> None:
        self.draws = draws

    def poisson(self, mean: float) -> int:
        return int(self.draws["poisson"].pop(0))

    def choice(self, count: int, size: int, replace: bool) -> np.ndarray:
        chosen = self.draws["choice"].pop(0)
        assert not replace and len(chosen) == size and max(chosen) < count
        return np.array(chosen)

    def permutation(self, count: int) -> np.ndarray:
        order = self.draws["permutation"].pop(0)
        assert sorted(order) == list(range(count))
        return np.array(order)


def document(plain: int, sentence: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """[BOS] 10 11 12 ... [EOS]; a sentence begins every few tokens."""
    ids = np.array([BOS, *range(10, 10 + plain), EOS])
    flags = np.where(ids < 10, SPECIAL, np.where((ids - 10) % sentence == 0, SENTENCE | WORD, WORD))
    return ids, flags.astype(np.uint8)


def test_by_hand() -> None:
    ids, flags = document(10)  # 30% of 10 are 3
    random: Any = Script(poisson=[2, 0, 5], choice=[[6, 0, 3]])  # lengths 2, 0, 1 (cut); 7 stay, gaps 0, 3 and 6
    out = infill_text(ids, flags, random, mask=MASK, noise=Noise())
    assert out.tolist() == [BOS, MASK, 12, 13, 14, MASK, 15, 16, 17, MASK, 19, EOS]
    moved, marks = shuffle_sentences(ids, flags, Script(permutation=[[2, 0, 1]]))  # type: ignore[arg-type]
    assert moved.tolist() == [BOS, 18, 19, 10, 11, 12, 13, 14, 15, 16, 17, EOS]
    assert (marks & SENTENCE).tolist() == [0, SENTENCE, 0, SENTENCE, 0, 0, 0, SENTENCE, 0, 0, 0, 0]


def test_masks_for_nothing_do_not_make_it_longer() -> None:
    ids, flags = document(4)  # two hidden
    random: Any = Script(poisson=[0, 0, 0, 1, 0, 1], choice=[[0, 1]])
    assert infill_text(ids, flags, random, mask=MASK, noise=Noise(rate=0.5)).tolist() == [BOS, MASK, 11, MASK, 13, EOS]


def test_a_whole_document_can_be_hidden() -> None:
    ids, flags = document(5)
    assert infill_text(ids, flags, np.random.default_rng(0), mask=MASK, noise=Noise(rate=1.0)).tolist() == [BOS, MASK, EOS]
    empty = np.array([BOS, EOS]), np.array([SPECIAL, SPECIAL], dtype=np.uint8)
    assert denoise(*empty, np.random.default_rng(0), mask=MASK, noise=Noise()).tolist() == [BOS, EOS]


@given(
    plain=st.integers(1, 120),
    sentence=st.integers(1, 30),
    rate=st.floats(0.01, 1.0),
    mean=st.floats(0.3, 8.0),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=300, deadline=None)
def test_what_stays_stays_in_order_between_single_masks(plain: int, sentence: int, rate: float, mean: float, seed: int) -> None:
    ids, flags = document(plain, sentence)
    out = infill_text(ids, flags, np.random.default_rng(seed), mask=MASK, noise=Noise(rate=rate, mean=mean)).tolist()
    stays = [t for t in out if t >= 10]
    assert out[0] == BOS and out[-1] == EOS and len(out) <= len(ids)
    assert stays == sorted(stays)
    assert plain - len(stays) == min(plain, math.ceil(rate * plain))
    assert all((a, b) != (MASK, MASK) for a, b in pairwise(out))
    # Wherever tokens are missing there is a mask.
    for a, b in pairwise(out):
        if a >= 10 and b >= 10:
            assert b == a + 1


@given(plain=st.integers(1, 60), sentence=st.integers(1, 20), seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_sentences_stay_whole(plain: int, sentence: int, seed: int) -> None:
    ids, flags = document(plain, sentence)
    moved, marks = shuffle_sentences(ids, flags, np.random.default_rng(seed))
    assert sorted(moved.tolist()) == sorted(ids.tolist()) and moved[0] == BOS and moved[-1] == EOS
    assert dict(zip(moved.tolist(), marks.tolist(), strict=True)) == dict(zip(ids.tolist(), flags.tolist(), strict=True))
    begins = [i for i in range(1, plain + 1) if marks[i] & SENTENCE]
    for start, end in zip(begins, [*begins[1:], plain + 1], strict=True):
        assert moved[start:end].tolist() == list(range(int(moved[start]), int(moved[start]) + end - start))


def test_spans_have_the_mean_that_was_asked_for() -> None:
    ids, flags = document(3000)
    outs = [infill_text(ids, flags, np.random.default_rng(seed), mask=MASK, noise=Noise()) for seed in range(20)]
    masks = np.mean([(out == MASK).sum() for out in outs])
    assert masks == pytest.approx(900 / 3, rel=0.05), "900 hidden tokens in spans of 3 (masks for nothing included in the mean)"
