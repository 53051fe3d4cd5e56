"""Fill in the middle: a causal model learns to infill because the middle of some documents is moved to their end.

    prefix | middle | suffix ─┬─→ PSM: <PRE> prefix <SUF> suffix <MID> middle <end>
         (two even cuts)      └─→ SPM: <PRE> <SUF> suffix <MID> prefix middle <end>

"Efficient Training of Language Models to Fill in the Middle" (Bavarian et al., 2207.14255, sections 3 and 3.1, appendices C and D). The
paper prefers cuts between characters; here, where a document is tokens already, they lie between tokens. All tokens are predicted as ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from norma.text.words import SPECIAL

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]
ADDED = 3  # tokens that a changed document is longer by
SHORTEST = 3  # tokens: one for each part


@dataclass(frozen=True)
class Sentinels:
    """Ids of the tokens that stand before the three parts."""

    prefix: int
    suffix: int
    middle: int


def fill_in_the_middle(
    ids_N: Ints,
    flags_N: Flags,
    random: np.random.Generator,
    *,
    sentinels: Sentinels,
    rate: float = 0.5,
    suffix_first: float = 0.5,
) -> tuple[Ints, Flags]:
    """One document's ids and flags, new: with chance ``rate`` rearranged and ``ADDED`` tokens longer, else as they were.

    Special tokens at either end (BOS, EOS) stay there; an end token is what tells the model that the middle is over, so documents
    should have one. Left as it is, too: a document of fewer than ``SHORTEST`` other tokens, and one with special tokens in
    between, whose order means something. Both cuts are even draws from all gaps, the ends among them, so a part may be empty.

    In SPM prefix and middle stand together behind <MID>: the same as a PSM document with an empty prefix, so that each form teaches the
    other (the paper's variant 2, appendix D).

    Args:
        ids_N, flags_N: see :mod:`norma.text.words`; sentinels get SPECIAL, other flags go with their tokens, also to a new
            neighbour: what follows a sentinel is a piece of a document, perhaps a piece of a word.
        rate: up to 0.9 ordinary text is predicted as well as without (section 4.2, appendix B).
        suffix_first: the share of SPM among the changed ones.
    """
    # Four draws for each document, used or not: another rate leaves the cuts of a changed document as they were.
    changed, spm = (random.random(2) < (rate, suffix_first)).tolist()
    gaps = random.random(2)
    ordinary = np.flatnonzero(flags_N & SPECIAL == 0)
    inner = slice(ordinary[0], ordinary[-1] + 1) if len(ordinary) else slice(0, 0)
    ids, flags = ids_N.astype(np.int64), flags_N.astype(np.uint8)
    if not changed or len(ordinary) < SHORTEST or len(ordinary) < inner.stop - inner.start:
        return ids, flags
    first, second = (inner.start + np.sort((gaps * (len(ordinary) + 1)).astype(np.int64))).tolist()

    def arranged(x: npt.NDArray[np.integer], pre: int, suf: int, mid: int) -> npt.NDArray[np.integer]:
        prefix, middle, suffix = x[inner.start : first], x[first:second], x[second : inner.stop]
        body = [[pre, suf], suffix, [mid], prefix, middle] if spm else [[pre], prefix, [suf], suffix, [mid], middle]
        return np.concatenate([x[: inner.start], *body, x[inner.stop :]])

    moved = arranged(ids, sentinels.prefix, sentinels.suffix, sentinels.middle)
    return moved.astype(np.int64), arranged(flags, SPECIAL, SPECIAL, SPECIAL).astype(np.uint8)
