"""Texts unlike each other: character trigrams, and the farthest-first walk (Gonzalez 1985; active learning's k-center).

Trigrams need no tokenizer and no language: 请回答 is one as well as "ple".
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

_BUCKETS = 1 << 14
_CHARACTERS = 2000  # of a text: its beginning tells enough


def trigram_vectors(texts: Sequence[str]) -> csr_matrix:
    """(len(texts), buckets) rows of length 1: square roots of hashed trigram counts; a text without any is a row of zeros."""
    data: list[float] = []
    columns: list[int] = []
    ends = [0]
    for text in texts:
        plain = f" {text[:_CHARACTERS].casefold()} "
        counts = Counter(zlib.crc32(plain[i : i + 3].encode("utf-8", "surrogatepass")) % _BUCKETS for i in range(len(plain) - 2))
        length = sum(counts.values()) ** 0.5
        columns += counts
        data += [count**0.5 / length for count in counts.values()]
        ends.append(len(columns))
    return csr_matrix((data, columns, ends), shape=(len(texts), _BUCKETS))


def farthest_first(texts: Sequence[str], count: int, seen: Sequence[str] = ()) -> list[int]:
    """Numbers of ``count`` texts, each the least like all chosen before it and all ``seen``; ties go to the earlier text."""
    if not texts or count <= 0:
        return []
    rows = trigram_vectors(texts)
    nearest = np.full(len(texts), -1.0)  # cosine with the most similar chosen or seen text
    if seen:
        known = trigram_vectors(seen)
        for start in range(0, len(seen), 256):
            nearest = np.maximum(nearest, (rows @ known[start : start + 256].T).toarray().max(axis=1))
    chosen: list[int] = []
    for _ in range(min(count, len(texts))):
        best = int(np.argmin(np.round(nearest, 12)))
        chosen.append(best)
        nearest = np.maximum(nearest, (rows @ rows[best].T).toarray().ravel())
        nearest[chosen] = np.inf
    return chosen
