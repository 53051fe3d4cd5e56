"""From a packed batch to its loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from norma.base.ranks import ALONE, Ranks
from norma.nn import Transformer
from norma.text.packing import IGNORE, Batches
from norma.train.examples import PLAIN, Examples, Scoring, examples_loss


def language_losses(
    model: Transformer,
    batches: Batches,
    step: int,
    *,
    micro: int,
    dtype: torch.dtype,
    ranks: Ranks = ALONE,
    scoring: Scoring = PLAIN,
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """The loss of one step, a micro-batch at a time; their sum is the mean over the targets of the WHOLE batch, of all ranks."""
    batch = batches[step]
    targets = max(1, int((batch.targets != IGNORE).sum()))
    own = batch.rows(ranks.share(len(batch.ids)))
    for start in range(0, ranks.most(len(batch.ids)), micro):
        part = own.rows(slice(start, start + micro))
        if not len(part.ids):  # another rank has a row more: ranks go forward and backward together
            part = replace(batch.rows(slice(0, 1)), targets=np.full_like(batch.targets[:1], IGNORE))
            part = replace(part, documents=np.zeros_like(part.documents))
        found = examples_loss(model, Examples(part.ids, part.targets, part.documents, part.positions), dtype, scoring)
        numbers = {"loss": float(found.minimised.detach()) / targets, "tokens": float((part.documents > 0).sum())}
        if found.text_bytes:
            numbers |= {"nats": found.text_nats, "bytes": float(found.text_bytes)}
        loss = found.minimised / targets
        if found.router is not None:
            loss = loss + found.router / len(batch.ids)
            numbers["loss.router"] = float(found.router.detach()) / len(batch.ids)
        yield loss * ranks.readers, numbers
