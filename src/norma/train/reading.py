"""Texts that are read and not written: ids and segments, as padded rows, to hidden states.

    Reading, Reading, ... ─→ rows of one length (B, T) ─→ hidden states (B, T, W), and which tokens are real

Shapes: B texts, T tokens, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from norma.nn import Mask, Transformer
from norma.train.scoring import ROUND


@dataclass(frozen=True)
class Reading:
    """One text as a model reads it. ``segments`` are all 0 but in pairs of an encoder."""

    ids: Sequence[int]
    segments: Sequence[int]


def states(network: Transformer, texts: Sequence[Reading], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(B, T, W) hidden states in ``dtype``, differentiable, and (B, T) bool, True at real tokens. A text a row, filled up on the right."""
    length = -(-max(len(text.ids) for text in texts) // ROUND) * ROUND
    ids, segments = (np.zeros((len(texts), length), dtype=np.int64) for _ in range(2))
    real = np.zeros((len(texts), length), dtype=np.bool_)
    for row, text in enumerate(texts):
        n = len(text.ids)
        ids[row, :n], segments[row, :n], real[row, :n] = text.ids, text.segments, True
    ids_BT, segments_BT, real_BT = (torch.from_numpy(x).to(network.device) for x in (ids, segments, real))
    two = segments_BT if network.config.segments > 1 and segments.any() else None
    return network.hidden(ids_BT, Mask(padding=real_BT), segments_BT=two, dtype=dtype), real_BT


def parts(sizes: Sequence[int], tokens: int) -> list[list[int]]:
    """Numbers of the rows of each micro-batch: at most ``tokens`` padded tokens each, rows of like size together."""
    made: list[list[int]] = []
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        if made and (len(made[-1]) + 1) * sizes[i] <= tokens:
            made[-1].append(i)
        else:
            made.append([i])
    return made
