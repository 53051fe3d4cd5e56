"""From a packed batch to its loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from norma.base.ranks import ALONE, Ranks
from norma.nn import Transformer
from norma.text.packing import IGNORE, Batches
from norma.train.examples import PLAIN, Examples, Scoring, examples_loss


class Leash(NamedTuple):
    """A frozen model that training stays near: learning without forgetting, its own words the old task (Li and Hoiem, 1606.09282).

    ``weight``: nats of loss for a nat of KL(reference || model) a token.
    """

    reference: Transformer
    weight: float


def language_losses(
    model: Transformer,
    batches: Batches,
    step: int,
    *,
    micro: int,
    dtype: torch.dtype,
    ranks: Ranks = ALONE,
    scoring: Scoring = PLAIN,
    leash: Leash | None = None,
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """The loss of one step, a micro-batch at a time; their sum is the mean over the targets of the WHOLE batch, of all ranks.

    With a leash it is the mean of -log p + weight KL(reference || model): what the reference would say at each target stays likely.
    """
    batch = batches[step]
    targets = max(1, int((batch.targets != IGNORE).sum()))
    own = batch.rows(ranks.share(len(batch.ids)))
    for start in range(0, ranks.most(len(batch.ids)), micro):
        part = own.rows(slice(start, start + micro))
        if not len(part.ids):  # another rank has a row more: ranks go forward and backward together
            part = replace(batch.rows(slice(0, 1)), targets=np.full_like(batch.targets[:1], IGNORE))
            part = replace(part, documents=np.zeros_like(part.documents))
        found = examples_loss(
            model,
            Examples(part.ids, part.targets, part.documents, part.positions),
            dtype,
            scoring,
            None if leash is None else leash.reference,
        )
        numbers = {"loss": float(found.minimised.detach()) / targets, "tokens": float((part.documents > 0).sum())}
        if found.text_bytes:
            numbers |= {"nats": found.text_nats, "bytes": float(found.text_bytes)}
        loss = found.minimised / targets
        if leash is not None and found.kl is not None:
            loss = loss + leash.weight * found.kl / targets
            numbers["kl"] = float(found.kl.detach()) / targets
        if found.router is not None:
            loss = loss + found.router / len(batch.ids)
            numbers["loss.router"] = float(found.router.detach()) / len(batch.ids)
        yield loss * ranks.readers, numbers
