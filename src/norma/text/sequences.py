"""Packed sequences of T tokens out of shards. Each is computed from (shards, seed, its number); nothing is remembered.

    epoch ─→ shift ─→ the corpus as a ring, documents end to end, cut every T tokens from the shift on ─→ blocks
          └→ key ──→ Permutation(blocks) ─→ sequence i is block permutation[i] ─→ ids, documents, positions, flags

    step N, B rows ─→ sequences N * B to N * B + B - 1, counted through all epochs ─→ the rank's rows of them

Why blocks of tokens are permuted, and not documents: the place of a block follows from its number alone. Documents in
a permuted order would need the prefix sums of their permuted lengths: 8 bytes for each document and a pass over all of
them in every epoch and process, before the first batch can be read; a long document would also fill many sequences of
one batch. So memory and start-up do not grow with the corpus, and a resumed run opens any epoch at once. The shift,
another one each epoch, sees to it that a document is not cut at the same places again. What this does not mix: short
documents that stand together in the corpus mostly stay together in a sequence (never in attention).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from norma.base.errors import NormaError
from norma.text.permutation import Permutation
from norma.text.shards import Shards
from norma.text.words import SPECIAL, WORD

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Packed:
    """B sequences of T tokens; ids, documents and positions int64, flags uint8, all (B, T).

    ``documents`` numbers the documents of a sequence from 1 for the attention mask, 0 is padding. ``positions`` start at 0
    in each document, also in one that began in another sequence; such a piece begins with WORD, whatever its first token is.
    """

    ids: Ints
    documents: Ints
    positions: Ints
    flags: Flags


class Sequences:
    """Endless sequences of ``length`` tokens; ``len`` is how many make an epoch.

    An epoch reads every token once. Less than one sequence of padding is in it, at the end of one of them.
    A lookup costs O(log documents), memory does not depend on the corpus. Raises NormaError when there is no token.
    """

    def __init__(self, shards: Shards, *, length: int, seed: int) -> None:
        if length < 1 or seed < 0:
            raise ValueError(f"length {length} must be positive, seed {seed} not negative")
        if not shards.tokens:
            raise NormaError("there are no tokens to train on", where=shards.folder, mend="Check the corpus stage's counts")
        self.shards, self.length, self.seed = shards, length, seed
        self._count = -(-shards.tokens // length)

    def __len__(self) -> int:
        return self._count

    def batch(self, step: int, size: int, rank: int = 0, ranks: int = 1) -> Packed:
        """The rows of ``rank`` in the batch of ``size`` sequences at ``step``.

        The rows of all ranks, one after another, are the same for any number of ranks (which need not divide ``size``).
        Epochs follow one another without a gap: a batch may hold the last sequences of one and the first of the next.
        """
        if not (step >= 0 and size >= 1 and 0 <= rank < ranks):
            raise ValueError(f"no batch of {size} at step {step} for rank {rank} of {ranks}")
        start = step * size
        return self.rows(np.arange(start + rank * size // ranks, start + (rank + 1) * size // ranks))

    def rows(self, numbers: Ints) -> Packed:
        """The sequences of these numbers (B,), counted from 0 through all epochs."""
        shape = (len(numbers), self.length)
        ids = np.full(shape, self.shards.made.pad, dtype=np.int64)
        documents, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        flags = np.full(shape, SPECIAL, dtype=np.uint8)
        epochs = numbers // self._count
        for epoch in np.unique(epochs).tolist():
            chosen = np.flatnonzero(epochs == epoch)
            for row, (start, n) in zip(chosen.tolist(), self.places(epoch, numbers[chosen] % self._count), strict=True):
                begins = self._read(start, n, ids[row], flags[row])
                documents[row, :n] = np.cumsum(begins)
                at = np.arange(n)
                positions[row, :n] = at - np.maximum.accumulate(np.where(begins, at, 0))
                flags[row, :n][begins] |= WORD
        return Packed(ids, documents, positions, flags)

    def places(self, epoch: int, index: Ints) -> list[tuple[int, int]]:
        """Where sequences of an epoch lie: the token of the corpus each begins with, and how many it holds (to go round the ring)."""
        tokens = self.shards.tokens
        words = np.random.SeedSequence([self.seed, epoch]).generate_state(3, np.uint64).tolist()
        shift, key = words[0] % tokens, words[1] << 64 | words[2]
        blocks = Permutation(self._count, key)[index].tolist()
        return [((shift + block * self.length) % tokens, min(self.length, tokens - block * self.length)) for block in blocks]

    def _read(self, start: int, n: int, ids: Ints, flags: Flags) -> npt.NDArray[np.bool_]:
        """Fill rows (T,) with n tokens from ``start`` on; returns where among them a document, or a piece of one, begins."""
        begins = np.zeros(n, dtype=np.bool_)
        begins[0] = True
        end, at = start + n, 0
        for a, b in ((start, min(end, self.shards.tokens)), (0, max(0, end - self.shards.tokens))):
            for span in self.shards.spans(a, b):
                ids[at : at + len(span.tokens)], flags[at : at + len(span.tokens)] = span.tokens, span.flags
                begins[at + span.begins] = True
                at += len(span.tokens)
        return begins
