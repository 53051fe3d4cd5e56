"""Texts of different lengths side by side in rows, so that little is computed that is not read.

    lengths ─→ how long a row is ─→ which text stands where ─→ ids, segments, positions, documents (R, L)

Padding sixteen sentences to the longest of them makes twice the tokens that there are (measured on SST-2 and on docstrings); a row of
several texts, each of which sees itself alone, wastes some hundredths. Letters: N texts, R rows, L tokens of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from norma.train.scoring import ROUND

WIDEST = 256  # tokens of a row, but for longer texts: attention is computed between all tokens of a row
CHEAP = 2048  # tokens of a row at which attention costs as much as everything else, near enough for choosing


@dataclass(frozen=True)
class Laid:
    """Where each text stands: its row and its first place there. ``rows`` of ``length`` tokens."""

    places: tuple[tuple[int, int], ...]
    rows: int
    length: int

    @property
    def cost(self) -> float:
        """Arithmetic, as tokens."""
        return self.rows * self.length * (1 + self.length / CHEAP)


def laid(lengths: Sequence[int]) -> Laid:
    """The cheapest of some lengths of a row, from the longest text's to :data:`WIDEST`."""
    longest = -(-max(lengths) // ROUND) * ROUND
    whole = -(-sum(lengths) // ROUND) * ROUND
    widest = max(longest, min(WIDEST, whole))
    return min((_fill(lengths, length) for length in range(longest, widest + 1, ROUND)), key=lambda made: made.cost)


def _fill(lengths: Sequence[int], length: int) -> Laid:
    """The longest texts first, each into the fullest row that has room (best-fit decreasing)."""
    free: list[int] = []
    places = [(0, 0)] * len(lengths)
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        room = [row for row, left in enumerate(free) if left >= lengths[i]]
        row = min(room, key=lambda row: free[row]) if room else len(free)
        if not room:
            free.append(length)
        places[i] = (row, length - free[row])
        free[row] -= lengths[i]
    return Laid(tuple(places), len(free), length)
