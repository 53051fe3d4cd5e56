"""Denoising: a document with masked spans and its sentences in another order is to be written as it was.

    document  A B C . D E . F G .
    sentences in another order ─→ F G . A B C . D E .
    spans masked, each by ONE mask, perhaps none behind it ─→ F <mask> . A <mask> D <mask> E .
    target    A B C . D E . F G .

"BART: Denoising Sequence-to-Sequence Pre-training" (Lewis et al., 1910.13461, section 2.2 text infilling and sentence permutation, section
5.1: 30% of the tokens, spans from a Poisson distribution with mean 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from norma.text.words import SENTENCE, SPECIAL

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Noise:
    """How a document is changed.

    Attributes:
        rate: share of its tokens that is hidden.
        mean: of the Poisson distribution of a span's length. A span of no token puts a mask where nothing was.
        shuffled: whether sentences change places.
    """

    rate: float = 0.3
    mean: float = 3.0
    shuffled: bool = True


def shuffle_sentences(ids_N: Ints, flags_N: Flags, random: np.random.Generator) -> tuple[Ints, Flags]:
    """The sentences in an order drawn from all; special tokens at either end stay where they are."""
    start, end = _inner(flags_N)
    begins = np.flatnonzero(flags_N[start:end] & SENTENCE) + start
    edges = [start, *(int(b) for b in begins if b > start), end]
    order = random.permutation(len(edges) - 1).tolist()

    def laid(x: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        return np.concatenate([x[:start], *(x[edges[i] : edges[i + 1]] for i in order), x[end:]])

    return laid(ids_N).astype(np.int64), laid(flags_N).astype(np.uint8)


def infill_text(ids_N: Ints, flags_N: Flags, random: np.random.Generator, *, mask: int, noise: Noise) -> Ints:
    """The ids with spans masked, in all ceil(``rate`` * ordinary tokens) of them hidden; special tokens at either end stay.

    Between two spans there is always a token that stays, so that no two masks stand side by side; which gaps they fall into is an even
    draw. The result is never longer than the document.
    """
    start, end = _inner(flags_N)
    ordinary = end - start
    hidden = min(math.ceil(noise.rate * ordinary), ordinary)
    lengths = _spans(hidden, ordinary, noise.mean, random)
    ids = ids_N.astype(np.int64)
    if not lengths:
        return ids
    stays = ordinary - hidden
    gaps = np.sort(random.choice(stays + 1, len(lengths), replace=False)).tolist()  # spans lie before the gap-th token that stays
    sign, pieces, at, passed = np.array([mask], dtype=np.int64), [ids[:start]], start, 0
    for gap, length in zip(gaps, lengths, strict=True):
        pieces += [ids[at : at + gap - passed], sign]
        at, passed = at + gap - passed + length, gap
    return np.concatenate([*pieces, ids[at:]])


def denoise(ids_N: Ints, flags_N: Flags, random: np.random.Generator, *, mask: int, noise: Noise) -> Ints:
    """A document as the encoder reads it: new ids, at most as many."""
    ids, flags = shuffle_sentences(ids_N, flags_N, random) if noise.shuffled else (ids_N, flags_N)
    return infill_text(ids, flags, random, mask=mask, noise=noise)


def _spans(hidden: int, ordinary: int, mean: float, random: np.random.Generator) -> list[int]:
    """Lengths whose sum is ``hidden``: drawn until that is reached, the last one cut."""
    lengths: list[int] = []
    left = hidden
    while left:
        lengths.append(min(int(random.poisson(mean)), left))
        left -= lengths[-1]
    # Spans need tokens that stay between them, and must not be more than what they hide, or the document would grow.
    surplus = len(lengths) - min(ordinary - hidden + 1, hidden)
    while surplus > 0 and 0 in lengths:
        del lengths[len(lengths) - 1 - lengths[::-1].index(0)]
        surplus -= 1
    while surplus > 0:
        last = lengths.pop()
        lengths[-1] += last
        surplus -= 1
    return lengths


def _inner(flags_N: Flags) -> tuple[int, int]:
    """Start and end of what lies between the special tokens at both ends."""
    ordinary = np.flatnonzero(flags_N & SPECIAL == 0)
    return (int(ordinary[0]), int(ordinary[-1]) + 1) if len(ordinary) else (0, 0)
