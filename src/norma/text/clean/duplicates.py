"""Copies: the first of several equal or nearly equal documents, in reading order, is kept.

    text ─NFC, white space─→ 16-byte digest ─→ seen before?                                     exact
    text ─NFC, lower case─→ units ─→ 5-grams ─→ MinHash ─→ LSH ─→ a kept document with J >= 0.8?   near

Near copies are looked for by rensa (Rust; no dependencies of its own): on Wikipedia its sketches of 128 permutations were 38 times as
fast as datasketch's (128 against 3.4 MB/s on one core), so that cutting text into 5-grams is what takes the time.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

from norma.base.errors import NormaError
from norma.text.clean.options import ExactOptions, NearOptions
from norma.text.clean.steps import Aside, Document, Step
from norma.text.clean.units import units
from norma.text.quarantine import Quarantine

SEED = 1  # of the hash functions; a constant, so that a corpus is cleaned alike everywhere
MISSED = 0.01  # the most of the pairs right at the threshold that the index may pass over


def text_digest(text: str) -> bytes:
    """16 bytes (BLAKE2b) that are equal for texts equal after Unicode NFC, with each run of white space as one space."""
    same = " ".join(unicodedata.normalize("NFC", text).split())
    return hashlib.blake2b(same.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Exact(Step):
    """Sets aside a text that came before. Memory: 90 bytes for each document kept, at most 160 (a set of 16-byte digests)."""

    name = "exact"

    def __init__(self, options: ExactOptions, quarantine: Quarantine | None = None) -> None:
        super().__init__(quarantine)
        self.options = options
        self.seen: set[bytes] = set()

    def judge(self, document: Document) -> Document | Aside:
        mark = text_digest(document.text)
        if mark in self.seen:
            return Aside("the same text came before")
        self.seen.add(mark)
        return document


def shingles(text: str, size: int) -> list[str]:
    """Runs of ``size`` units: words in spaced scripts, characters in Chinese, Japanese, Thai, ..., both where a text mixes them.

    A text of fewer units is one run; one of none (only punctuation) has no runs. Repeats are left in: a set is what is meant.
    """
    marks = units(unicodedata.normalize("NFC", text).lower())
    if len(marks) <= size:
        return [" ".join(marks)] if marks else []
    return [" ".join(run) for run in zip(*(marks[i:] for i in range(size)), strict=False)]


def bands(threshold: float, permutations: int) -> int:
    """The number of LSH bands: as few as leave at most ``MISSED`` of the pairs at the threshold unseen.

    With b bands of r rows, two documents of Jaccard similarity J share a band with probability 1 - (1 - J^r)^b
    (Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, section 3.4.2).
    """
    for rows in range(permutations, 0, -1):
        count, rest = divmod(permutations, rows)
        if rest == 0 and (1 - threshold**rows) ** count <= MISSED:
            return count
    return permutations


class Near(Step):
    """Sets aside a document whose 5-grams are nearly those of a document kept before (MinHash, Broder 1997; LSH).

    A document is compared with those that were KEPT, so that a chain of small changes (A like B, B like C, A unlike C) keeps A and C:
    nothing goes without a copy that stays. Similarity is estimated: with 256 permutations its standard error at J = 0.8 is 0.025 (Broder:
    sqrt(J (1 - J) / k)), so that pairs within about 0.05 of the threshold may fall on either side. Memory: about 4.7 KB for each document
    kept.
    """

    name = "near"

    def __init__(self, options: NearOptions, quarantine: Quarantine | None = None) -> None:
        super().__init__(quarantine)
        try:
            import rensa
        except ImportError:
            raise NormaError("finding near copies needs rensa", mend="pip install 'norma-lm[data]'") from None
        self.options = options
        self._sketch = rensa.RMinHash
        count = bands(options.threshold, options.permutations)
        self._index = rensa.RMinHashDeduplicator(options.threshold, options.permutations, True, count, SEED)
        self._number = 0

    def judge(self, document: Document) -> Document | Aside:
        runs = shingles(document.text, self.options.ngram)
        if not runs:
            return document
        sketch = self._sketch(self.options.permutations, SEED)
        sketch.update(runs)
        alike: Sequence[str] = self._index.get_duplicates(sketch)
        if alike:
            first = min(alike, key=lambda key: int(key.partition(" ")[0]))
            return Aside("nearly the same text came before", f"like {first.partition(' ')[2]}")
        self._index.add(f"{self._number} {document.place}", sketch)
        self._number += 1
        return document
