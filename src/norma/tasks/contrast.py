"""Learning embeddings: pairs of texts that belong together, each batch's other partners as negatives, for :func:`norma.train.train`.

    (text, partner[, a text that is near and wrong]) ─→ vectors of the whole step, no gradient ─→ InfoNCE ─→ its gradient per vector
    ─→ the same texts again, a micro-batch at a time: vector · gradient, whose gradient is that of the loss    (Gao et al., 2101.06983)

So the number of negatives is the batch's, and memory holds one micro-batch. A pair of a text with itself learns from dropout alone
(SimCSE, 2104.08821, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from norma.lm.embedding import pooled
from norma.nn import Transformer
from norma.objectives.contrastive import info_nce
from norma.train.reading import parts

MICRO_TOKENS = 4096


@dataclass(frozen=True)
class Pair:
    """Two texts that belong together, as ids; ``wrong`` is near the first and does not belong to it. ``group``: see ``info_nce``."""

    first: Sequence[int]
    second: Sequence[int]
    wrong: Sequence[int] | None = None
    group: int = 0


class ContrastiveTraining:
    """The losses of each step; every epoch goes through the pairs once, in an order of its own."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        rows: int,
        seed: int,
        dtype: torch.dtype,
        temperature: float = 0.05,
        symmetric: bool = True,
        pooling: str = "mean",
        grouped: bool = False,
        micro_tokens: int = MICRO_TOKENS,
    ) -> None:
        self.pairs, self.rows, self.seed, self.dtype = pairs, min(rows, len(pairs)), seed, dtype
        self.temperature, self.symmetric, self.pooling, self.grouped = temperature, symmetric, pooling, grouped
        self.micro_tokens = micro_tokens

    @property
    def steps_per_epoch(self) -> int:
        return max(1, len(self.pairs) // self.rows)

    def losses(self, network: Transformer, step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """The gradient of a step in micro-batches; the numbers come with the first."""
        chosen = self._step(step)
        wrong = [p for p in chosen if p.wrong is not None]
        texts = [p.first for p in chosen] + [p.second for p in chosen] + [p.wrong for p in wrong if p.wrong is not None]
        made = parts([len(ids) for ids in texts], self.micro_tokens)
        vectors, dropped = torch.zeros(len(texts), network.config.width, device=network.device), []
        with torch.no_grad():
            for part in made:
                dropped.append(_random(network.device))  # the second reading drops the same
                vectors[part] = pooled(network, [texts[i] for i in part], self.pooling, self.dtype)
        after = _random(network.device)
        n = len(chosen)
        leaf = vectors.requires_grad_(True)
        groups = None
        if self.grouped:
            groups = torch.tensor([p.group for p in chosen] + [-1 - i for i in range(len(wrong))], device=network.device)
        found = info_nce(leaf[:n], leaf[n:], temperature=self.temperature, symmetric=self.symmetric, groups_M=groups)
        (gradient,) = torch.autograd.grad(found.loss / n, leaf)
        first = {"loss": float(found.loss.detach()) / n, "nearest": float(found.nearest) / n}
        for part, state in zip(made, dropped, strict=True):
            _set_random(network.device, state)
            again = pooled(network, [texts[i] for i in part], self.pooling, self.dtype)
            yield (again * gradient[part]).sum(), {**first, "tokens": float(sum(len(texts[i]) for i in part))}
            first = {}
        _set_random(network.device, after)

    def _step(self, step: int) -> list[Pair]:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.Generator(np.random.Philox(key=(self.seed << 32) + epoch)).permutation(len(self.pairs))
        return [self.pairs[i] for i in order[place * self.rows : (place + 1) * self.rows].tolist()]


def _random(device: torch.device) -> Tensor:
    """The state of the random numbers that dropout takes on this device."""
    return torch.get_rng_state() if device.type == "cpu" else torch.cuda.get_rng_state(device)


def _set_random(device: torch.device, state: Tensor) -> None:
    if device.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.cuda.set_rng_state(state, device)


def retrieved(anchors_ND: Tensor, partners_ND: Tensor, ranks: Sequence[int] = (1, 10)) -> dict[str, float]:
    """Share of texts whose partner is among the nearest k of all partners, and the mean of 1 / rank (MRR); vectors of length 1."""
    similar = anchors_ND @ partners_ND.T
    place = (similar > similar.diagonal()[:, None]).sum(dim=1) + 1
    return {f"recall_at_{k}": float((place <= k).float().mean()) for k in ranks} | {"mrr": float((1 / place).mean())}
