"""Which stream each row of training comes from, and its number there. A function of (weights, seed, row); nothing is remembered.

    row g ─→ block g // P ─→ the block's order: each stream as often as its weight says, shuffled by (seed, block)
                           └→ row g's stream, and how many rows of that stream came before it

Drawing each row's stream by chance would need a pass over all rows before it to know its number within the stream. In blocks of P rows
every stream comes an equal number of times, so the count of earlier blocks is a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from norma.base.errors import NormaError
from norma.base.random import keyed

Ints = npt.NDArray[np.int64]
BLOCK = 1024  # rows of a block: weights are met to a thousandth


class Mixture:
    """Streams by weight. ``counts`` says how many rows of a block each has.

    Args:
        weights: one a stream, positive; only their ratios count.
        unit: rows that stay together: 1, or the rows of a step where whole steps are to belong to one stream.

    Raises NormaError for a weight so small that a block would have no row of it.
    """

    def __init__(self, weights: Sequence[float], *, seed: int, unit: int = 1) -> None:
        if not weights or min(weights) <= 0 or unit < 1:
            raise ValueError(f"a mixture needs positive weights, not {list(weights)}, and a unit of 1 at least, not {unit}")
        self.seed, self.unit = seed, unit
        self.counts = shares(weights, BLOCK)
        if 0 in self.counts:
            raise NormaError(
                f"weight {weights[self.counts.index(0)]:g} among {sum(weights):g} is too small", mend=f"Give at least 1 in {BLOCK}"
            )
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def rows(self, numbers: Ints) -> tuple[Ints, Ints]:
        """(stream, number within the stream) of the rows of these numbers, both of their shape."""
        groups, within = np.divmod(numbers.astype(np.int64), self.unit)
        blocks, places = np.divmod(groups, BLOCK)
        streams, before = np.empty_like(groups), np.empty_like(groups)
        for block in np.unique(blocks).tolist():
            here = blocks == block
            order, earlier = self._order(block)
            streams[here], before[here] = order[places[here]], earlier[places[here]]
        counts = np.array(self.counts, dtype=np.int64)
        return streams, (blocks * counts[streams] + before) * self.unit + within

    def _shuffled(self, block: int) -> tuple[Ints, Ints]:
        """The streams of a block in order, and for each place how many of its stream came before it in the block."""
        sorted_ = np.repeat(np.arange(len(self.counts)), self.counts)
        order = keyed(self.seed, block, use="mixture").permutation(sorted_).astype(np.int64)
        earlier = np.empty_like(order)
        for stream, count in enumerate(self.counts):
            earlier[order == stream] = np.arange(count)
        return order, earlier


def shares(weights: Sequence[float], total: int) -> list[int]:
    """Whole numbers in the ratio of the weights whose sum is ``total``: the largest remainders are rounded up."""
    exact = [weight * total / sum(weights) for weight in weights]
    counts = [int(x) for x in exact]
    for i in sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))[: total - sum(counts)]:
        counts[i] += 1
    return counts
