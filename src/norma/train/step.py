"""From a packed batch to its loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from norma.nn import Mask, Transformer
from norma.objectives.likelihood import cross_entropy_sum
from norma.text.packing import IGNORE, Batch, Batches


def batch_tensors(batch: Batch) -> tuple[Tensor, Tensor, Mask, Tensor]:
    """(ids, targets, mask, positions) of a packed batch; a row sees only itself."""
    ids, targets = torch.from_numpy(batch.ids), torch.from_numpy(batch.targets)
    return ids, targets, Mask(documents=torch.from_numpy(batch.documents)), torch.from_numpy(batch.positions)


def language_loss(model: Transformer, batch: Batch, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Sum of next-token cross-entropy (nats) over the trained targets of a batch, and their number."""
    ids, targets, mask, positions = batch_tensors(batch)
    hidden, targets = model.hidden(ids, mask, positions, dtype=dtype).flatten(0, 1), targets.flatten()
    features, cap = model.features(hidden), model.config.logit_softcap
    loss = cross_entropy_sum(features, model.head_weight(), targets, bias=model.head_bias, softcap=cap)
    return loss, int((targets != IGNORE).sum())


def language_losses(
    model: Transformer, batches: Batches, step: int, *, micro: int, dtype: torch.dtype
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """The loss of one step, a micro-batch at a time; their sum is the mean over the targets of the WHOLE batch."""
    batch = batches[step]
    targets = max(1, int((batch.targets != IGNORE).sum()))
    tokens = int((batch.documents > 0).sum())
    for part in batch.split(micro):
        loss, _ = language_loss(model, part, dtype)
        yield loss / targets, {"loss": float(loss.detach()) / targets, "tokens": tokens * len(part.ids) / len(batch.ids)}
