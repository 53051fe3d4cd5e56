"""How much of a document repeats itself (Rae et al., 2112.11446, table A1).

    lines, paragraphs ─→ share of those that stood before, by count and by characters
    words ─→ n-grams that come twice, for n = 1, 2, 3, ... (those of n from those of n - 1) ─→ characters they cover ─→ share

What stood before is counted, so that a line that comes twice counts once; the paper does not say. Characters are those of words: white
space counts nowhere, and a character in several n-grams counts once. All shares are from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from norma.text.clean.units import characters, share

Ints = npt.NDArray[np.int64]


def repeated(pieces: Sequence[str]) -> list[str]:
    """The pieces that stood before, in order: of a, b, a, a they are a, a."""
    seen: set[str] = set()
    again = []
    for piece in pieces:
        if piece in seen:
            again.append(piece)
        seen.add(piece)
    return again


def duplicate_share(pieces: Sequence[str]) -> float:
    """The share of the pieces that stood before."""
    return share(len(repeated(pieces)), len(pieces))


def duplicate_character_share(pieces: Sequence[str]) -> float:
    """The share of the characters that are in pieces that stood before."""
    return share(characters(repeated(pieces)), characters(pieces))


@dataclass(frozen=True)
class Ngrams:
    """The n-grams of a text that occur at least twice. Arrays have shape (occurrences,), in order of place.

    Args:
        n: words an n-gram.
        at: the word at which the occurrence begins, int64.
        number: equal for equal n-grams, int64.
        times: how often this n-gram occurs in the text, int64.
        first: whether this is its first occurrence, bool.
    """

    n: int
    at: Ints
    number: Ints
    times: Ints
    first: npt.NDArray[np.bool_]


def ngrams(words: Sequence[str]) -> Iterator[Ngrams]:
    """The repeated n-grams of n = 1, 2, 3, ...; ends where nothing repeats any more.

    An n-gram repeats only where both (n-1)-grams in it do, so that only those are looked at: after n = 4 a text has few left.
    """
    index: dict[str, int] = {}
    number = np.fromiter((index.setdefault(word, len(index)) for word in words), dtype=np.int64, count=len(words))
    at = np.arange(len(words), dtype=np.int64)
    n = 1
    while len(at):
        _, first_at, number, times = np.unique(number, return_index=True, return_inverse=True, return_counts=True)
        first = np.zeros(len(at), dtype=np.bool_)
        first[first_at] = True
        times = times[number]
        twice = times > 1
        at, number = at[twice], number[twice]
        if len(at):
            yield Ngrams(n, at, number, times[twice], first[twice])
        beside = at[1:] == at[:-1] + 1
        number = number[:-1][beside] * len(words) + number[1:][beside]  # numbers are below len(words): a pair is one exact integer
        at = at[:-1][beside]
        n += 1


def covered(at: Ints, n: int, lengths: Ints) -> int:
    """The characters of the words that lie in an n-gram which begins at one of ``at``; ``lengths`` are the words' characters."""
    edges = np.zeros(len(lengths) + 1, dtype=np.int64)
    edges[at] += 1
    edges[at + n] -= 1
    return int(lengths[np.cumsum(edges[:-1]) > 0].sum())


def top_ngram_share(grams: Ngrams, lengths: Ints) -> float:
    """The share of characters in the most frequent n-gram; of equally frequent ones, in the longest, of those in the earliest."""
    ends = np.concatenate([[0], np.cumsum(lengths)])
    size = ends[grams.at + grams.n] - ends[grams.at]
    best = grams.number[np.lexsort((grams.at, -size, -grams.times))[0]]
    return share(covered(grams.at[grams.number == best], grams.n, lengths), int(ends[-1]))


def duplicate_ngram_share(grams: Ngrams, lengths: Ints) -> float:
    """The share of characters in n-grams that stood before in the document."""
    return share(covered(grams.at[~grams.first], grams.n, lengths), int(lengths.sum()))


def ngram_shares(words: Sequence[str], top: Collection[int], duplicate: Collection[int]) -> Iterator[tuple[str, int, float]]:
    """``("top", n, share)`` and ``("duplicate", n, share)`` for the sizes asked for, n rising; none where nothing repeats."""
    lengths = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    last = max([*top, *duplicate], default=0)
    for grams in ngrams(words):
        if grams.n > last:
            return
        if grams.n in top:
            yield "top", grams.n, top_ngram_share(grams, lengths)
        if grams.n in duplicate:
            yield "duplicate", grams.n, duplicate_ngram_share(grams, lengths)
