"""Random numbers that belong to a place in the training run, not to a history of draws.

    (seed, step, row, use) ─→ Philox: key = seed, step; counter = row, use ─→ a fresh generator ─→ masks, pairs, cuts, turns

Whoever needs chance makes its generator anew from where it stands, so a resumed run draws what the unbroken one drew, and
the number of workers or ranks changes nothing. Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
2011, section 4.3) enciphers a counter under a key: 2^128 draws of a (row, use) lie before those of the next one begin, and other
keys are other ciphers.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

WORDS = 1 << 64


def keyed(seed: int, step: int, row: int = 0, use: str = "") -> np.random.Generator:
    """The generator of this seed, step and row: equal arguments give equal draws, any other ones an unrelated stream.

    Args:
        seed, step, row: each from 0 to 2^64 - 1. The row is its number in the whole batch, whichever rank holds it.
        use: a name of what the numbers are for. Two draws for one row under one name would be the same numbers: a mask that
            depends on the coin that chose masking, say.

    Philox's own words are the same on every machine and in every NumPy; what a Generator's methods make of them may change with
    NumPy's version (NEP 19), so a resumed run wants the NumPy it began with. Raises ValueError for numbers outside the range.
    """
    for name, value in (("seed", seed), ("step", step), ("row", row)):
        if not 0 <= value < WORDS:
            raise ValueError(f"{name} must be 0 to 2^64 - 1, not {value}")
    name_word = int.from_bytes(blake2b(use.encode(), digest_size=8).digest(), "little") if use else 0
    key, counter = np.array([seed, step], dtype=np.uint64), np.array([0, 0, row, name_word], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
