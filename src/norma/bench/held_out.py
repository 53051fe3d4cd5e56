"""Bits per byte of held-out text, measured the same way for any model that scores tokens.

validation shards ─→ rows: each document in windows of T + 1 tokens that share one ─→ model's scores, fp32 ─→ nats / ln 2 / bytes

Every token but a document's first is predicted once, from at most T tokens of its own document. The end token costs and stands for no
byte. Which text is read depends on the shards alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from norma.text.packing import IGNORE
from norma.text.shards import Shards

if TYPE_CHECKING:
    from torch import Tensor

Ints = npt.NDArray[np.int64]
MOST = 1 << 17  # tokens that are read, about
ROWS = 8  # windows whose scores exist at one time


@dataclass(frozen=True)
class HeldOut:
    """Windows to predict. ``ids`` and ``targets`` (N, T) int64, ``targets`` IGNORE behind a document's end; ``bytes`` of all targets."""

    ids: Ints
    targets: Ints
    bytes: int


def held_out(shards: Shards, length: int, byte_lengths: Ints, most: int = MOST) -> HeldOut:
    """Documents from the first on until ``most`` tokens are reached. ``byte_lengths`` (V,): the bytes of text that a token stands for."""
    rows: list[tuple[Ints, Ints]] = []
    tokens = 0
    for number in range(len(shards)):
        document = shards.document(number)[0].astype(np.int64)
        for start in range(0, len(document) - 1, length):
            window = document[start : start + length + 1]
            ids, targets = np.full(length, shards.made.pad, dtype=np.int64), np.full(length, IGNORE, dtype=np.int64)
            ids[: len(window) - 1], targets[: len(window) - 1] = window[:-1], window[1:]
            rows.append((ids, targets))
        tokens += len(document)
        if tokens >= most:
            break
    ids, targets = np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])
    return HeldOut(ids, targets, int(byte_lengths[targets[targets != IGNORE]].sum()))


def bits_per_byte(scores: Callable[[Tensor], Tensor], text: HeldOut) -> float:
    """``scores``: ids (B, T) → scores of the next token (B, T, V), in fp32 without gradient."""
    import torch
    from torch.nn import functional as F

    nats = 0.0
    with torch.no_grad():
        for at in range(0, len(text.ids), ROWS):
            found = scores(torch.from_numpy(text.ids[at : at + ROWS])).float().flatten(0, 1)
            targets = torch.from_numpy(text.targets[at : at + ROWS]).flatten()
            nats += float(F.cross_entropy(found, targets, reduction="sum", ignore_index=IGNORE))
    return nats / math.log(2) / text.bytes
