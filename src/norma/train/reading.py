"""Texts that are read and not written: ids and segments to hidden states.

    Reading, Reading, ... ─→ rows that hold several (laying.py) ─→ hidden states ─→ a text a row (B, T, W), and which tokens are real

Shapes: B texts, T tokens, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from norma.nn import Mask, Transformer
from norma.train.laying import laid
from norma.train.scoring import ROUND


@dataclass(frozen=True)
class Reading:
    """One text as a model reads it. ``segments`` are all 0 but in pairs of an encoder."""

    ids: Sequence[int]
    segments: Sequence[int]


def states(network: Transformer, texts: Sequence[Reading], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(B, T, W) hidden states in ``dtype``, differentiable, and (B, T) bool, True at real tokens. A text a row, filled up on the right.

    The network reads several texts in a row, each of which sees itself alone. What stands at places that are not real says nothing. Of
    a head that classifies by one state of a text, T is 1: that state.
    """
    made = laid([len(text.ids) for text in texts])
    ids, segments, positions, documents = (np.zeros((made.rows, made.length), dtype=np.int64) for _ in range(4))
    longest = -(-max(len(text.ids) for text in texts) // ROUND) * ROUND
    where, real = np.zeros((len(texts), longest), dtype=np.int64), np.zeros((len(texts), longest), dtype=np.bool_)
    for number, (text, (row, first)) in enumerate(zip(texts, made.places, strict=True)):
        n = len(text.ids)
        here = slice(first, first + n)
        ids[row, here], segments[row, here], positions[row, here], documents[row, here] = text.ids, text.segments, np.arange(n), number + 1
        where[number] = row * made.length + first
        where[number, :n] += np.arange(n)
        real[number, :n] = True
    device = network.device
    ids_RL, segments_RL, positions_RL, documents_RL, where_BT, real_BT = (
        torch.from_numpy(x).to(device) for x in (ids, segments, positions, documents, where, real)
    )
    two = segments_RL if network.config.segments > 1 and segments.any() else None
    mask = Mask(documents=documents_RL)
    hidden_RLW = network.hidden(ids_RL, mask, positions_RL, segments_BT=two, dtype=dtype)
    if (alone := _alone(network, real_BT)) is not None:
        where_BT, real_BT = where_BT.gather(1, alone), real_BT.gather(1, alone)
    found = hidden_RLW.flatten(0, 1).index_select(0, where_BT.flatten())
    return found.view(*where_BT.shape, -1), real_BT


def _alone(network: Transformer, real_BT: Tensor) -> Tensor | None:
    """(B, 1) the place of the only state that the head reads; None: it reads more."""
    config = network.config
    if config.head != "classify" or (config.kind == "encoder" and config.pooling == "mean"):
        return None
    return real_BT.sum(dim=1, keepdim=True) - 1 if config.kind == "decoder" else torch.zeros_like(real_BT[:, :1], dtype=torch.int64)


def parts(sizes: Sequence[int], tokens: int, *, padded: bool = True) -> list[list[int]]:
    """Numbers of the rows of each micro-batch: at most ``tokens`` tokens each, rows of like size together.

    ``padded``: each row takes as much as the longest; False where :func:`states` lays them side by side.
    """
    made: list[list[int]] = []
    held = 0
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        held = (len(made[-1]) + 1) * sizes[i] if made and padded else held + sizes[i]
        if made and held <= tokens:
            made[-1].append(i)
        else:
            made.append([i])
            held = sizes[i]
    return made
