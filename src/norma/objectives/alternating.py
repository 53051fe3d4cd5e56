"""Alternating language modelling: masked and next-token prediction on the same weights.

    step ─→ turns: which rows are masked ─┬─→ masked row: some tokens hidden, both sides seen ─┐
                                          └─→ causal row: nothing hidden, the left side seen ──┴─→ token t is read off place t - 1

The masked rows are in the masked next-token form: what stands at place t is predicted from the output at place t - 1, as a causal
model predicts it. One head and one shift then serve both, and the model can generate as it is. "GPT or BERT: why not both?"
(Charpentier and Samuel, 2410.24159, section 2; masked next-token prediction also in LLM2Vec, 2404.05961). AntLM (2412.03275) takes turns
by epochs; here they are steps, or rows.

Letters: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from norma.base.random import keyed
from norma.objectives.masking import Masking, MaskTokens, mask_tokens
from norma.text.packing import IGNORE
from norma.text.words import SPECIAL

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Flags = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Turns:
    """When it is masked prediction's turn.

    Args:
        by: ``step``, whole steps at a fixed beat; ``ratio``, whole steps by chance; ``row``, a share of the rows of each batch.
        every: by step: one masked step in ``every``, the last of each such group; the first steps are causal.
        share: by ratio: the chance that a step is masked. By row: the masked share of the rows.
    """

    by: Literal["step", "ratio", "row"] = "row"
    every: int = 2
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.share <= 1:
            raise ValueError(f"turns come every 1 or more steps, with a share from 0 to 1, not {self.every} and {self.share}")


def masked_rows(turns: Turns, *, seed: int, step: int, rows: int) -> Bools:
    """(B,) bool, True for the rows of ``step`` that are masked; the others are causal. A function of its arguments alone.

    Ask for the rows of the WHOLE batch and take those of a rank or micro-batch: then neither changes anything. By row, the masked ones
    are share * B, rounded up or down by chance so that their mean is exact, and drawn evenly.
    """
    if turns.by == "step":
        return np.full(rows, step % turns.every == turns.every - 1)
    random = keyed(seed, step, use="turns")
    chance = random.random()
    if turns.by == "ratio":
        return np.full(rows, chance < turns.share)
    count = int(np.floor(turns.share * rows + chance))
    return np.asarray(random.permutation(rows) < count)


def next_token(ids: Ints, documents: Ints) -> Ints:
    """Targets of next-token prediction, (..., T): at each place the token after it, ``IGNORE`` where that is not of its document."""
    return _shifted(ids.astype(np.int64), documents)


def masked_next_token(targets: Ints, documents: Ints) -> Ints:
    """Targets of masked prediction, (..., T), moved to where they are read: one place to the left, within their document.

    A target at its document's first place has no place to its left and is lost: see :func:`keep_first`.
    """
    return _shifted(targets, documents)


def _shifted(values: Ints, documents: Ints) -> Ints:
    out = np.full(values.shape, IGNORE, dtype=np.int64)
    same = (documents[..., 1:] == documents[..., :-1]) & (documents[..., 1:] > 0)
    out[..., :-1] = np.where(same, values[..., 1:], IGNORE)
    return out


def keep_first(flags: Flags, documents: Ints) -> Flags:
    """Flags in which each document's first token counts as SPECIAL, (..., T), so that no masked token is one that cannot be predicted."""
    first = np.ones(documents.shape, dtype=np.bool_)
    first[..., 1:] = documents[..., 1:] != documents[..., :-1]
    return np.where(first, flags | np.uint8(SPECIAL), flags).astype(np.uint8)


@dataclass(frozen=True)
class Alternating:
    """What an alternating batch is trained on.

    Attributes:
        ids: (B, T) int64, with masks in the masked rows.
        targets: (B, T) int64; the token to predict from each place's output, ``IGNORE`` where none is.
        causal: (B,) bool: whether the row's attention sees the left side only. As a :class:`norma.nn.mask.Mask` the batch has
            ``causal=True, prefix=~causal[:, None]`` over all T places, for the prefix is what is seen from everywhere.
    """

    ids: Ints
    targets: Ints
    causal: Bools


def alternate(
    ids_BT: Ints,
    documents_BT: Ints,
    flags_BT: Flags,
    masked_B: Bools,
    randoms: Sequence[np.random.Generator],
    *,
    tokens: MaskTokens,
    masking: Masking,
) -> Alternating:
    """The batch in which the rows of ``masked_B`` (see :func:`masked_rows`) are masked, and the others predict each next token.

    Args:
        randoms: one generator for each row, ``keyed(seed, step, row, "masking")`` with the row's number in the whole batch.
        tokens, masking, flags_BT: as for :func:`norma.objectives.masking.mask_tokens`; a document's first token is never masked.
    """
    ids, targets = ids_BT.astype(np.int64), next_token(ids_BT, documents_BT)
    kept = keep_first(flags_BT, documents_BT)
    for b in np.flatnonzero(masked_B).tolist():
        ids[b], hidden = mask_tokens(ids_BT[b], documents_BT[b], kept[b], tokens=tokens, masking=masking, random=randoms[b])
        targets[b] = masked_next_token(hidden, documents_BT[b])
    return Alternating(ids, targets, ~masked_B)
