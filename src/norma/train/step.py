"""From a packed batch to its loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from norma.base.ranks import ALONE, Ranks
from norma.nn import Transformer
from norma.text.packing import Batches
from norma.train.examples import PLAIN, Examples, Scoring, examples_loss
from norma.train.scoring import start_of
from norma.train.seq2seq import answering


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

    Of two stacks the encoder reads what stands before each stretch of targets, and the decoder learns that stretch. With a leash the
    loss is the mean of -log p + weight KL(reference || model): what the reference would say at each target stays likely.
    """
    batch = batches[step]
    two = model.config.kind == "encoder-decoder"
    whole = answering(batch, start_of(model)) if two else Examples(batch.ids, batch.targets, batch.documents, batch.positions)
    targets, own = max(1, whole.predicted), ranks.share(len(whole))
    for start in range(own.start, own.start + ranks.most(len(whole)), micro):
        part = whole.part(start, min(start + micro, own.stop))
        if not len(part):  # another rank has a row more: ranks go forward and backward together
            part = whole.part(0, 1).blank()
        found = examples_loss(model, part, dtype, scoring, None if leash is None else leash.reference)
        numbers = {"loss": float(found.minimised.detach()) / targets, "tokens": float(part.tokens)}
        if found.text_bytes:
            numbers |= {"nats": found.text_nats, "bytes": float(found.text_bytes)}
        loss = found.minimised / targets
        if leash is not None and found.kl is not None:
            loss = loss + leash.weight * found.kl / targets
            numbers["kl"] = float(found.kl.detach()) / targets
        if found.router is not None:
            loss = loss + found.router / len(whole)
            numbers["loss.router"] = float(found.router.detach()) / len(whole)
        yield loss * ranks.readers, numbers
