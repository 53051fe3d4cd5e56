"""A pretraining step: rows of several objectives by weight, each objective's loss a mean over what it predicts.

    step N ─→ rows N * B ... N * B + B - 1 ─→ Mixture ─→ each row's stream and its number there ─→ Examples, a stream at a time
    loss = sum over streams of (its share of the rows) * (its nats / its targets)  [+ the same for pairs]

With one stream that is the mean over the targets of the whole batch. With several it is the share of the rows that decides, not how many
tokens an objective happens to predict: masked rows predict a seventh of what causal rows do, and would hardly count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from norma.base.ranks import ALONE, Ranks
from norma.nn import ModelConfig, Transformer
from norma.text.mixture import Mixture
from norma.train.examples import PLAIN, Examples, Scoring, examples_flops, examples_loss
from norma.train.streams import Stream

Turns = Literal["row", "step"]


class Pretraining:
    """``losses`` is what :func:`norma.train.train` asks for.

    Args:
        streams, weights: objectives over corpora, and how often their rows come.
        size, length: rows of a step, and tokens of a row.
        turns: whether streams share each step's rows, or take turns by whole steps.
    """

    def __init__(
        self, streams: Sequence[Stream], weights: Sequence[float], *, size: int, length: int, seed: int, turns: Turns = "row"
    ) -> None:
        self.streams, self.size, self.length = list(streams), size, length
        self.mixture = Mixture(weights, seed=seed, unit=size if turns == "step" else 1)

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every stream has been read once, the small ones more than once."""
        rows = max(len(stream) * sum(self.mixture.counts) / count for stream, count in zip(self.streams, self.mixture.counts, strict=True))
        return max(1, round(rows / self.size))

    def flops_per_step(self, config: ModelConfig) -> float:
        """Arithmetic of a step, forward and backward, told from the first rows of each stream."""
        rows = np.arange(8)
        found = [examples_flops(config, stream.rows(rows, 0)) / len(rows) for stream in self.streams]
        return self.size * sum(f * n for f, n in zip(found, self.mixture.counts, strict=True)) / sum(self.mixture.counts)

    def parts(self, step: int, ranks: Ranks = ALONE) -> list[tuple[Stream, int, Examples, int]]:
        """(stream, its rows in the whole step, this rank's examples, the most that a rank has) for each stream with some in this step.

        The rows of all ranks together are the same for any number of ranks. A rank that has none of a stream gets one row to go
        through the motions with.
        """
        first = step * self.size
        which, within = self.mixture.rows(np.arange(first, first + self.size))
        found = []
        for i, stream in enumerate(self.streams):
            if not (count := int((which == i).sum())):
                continue
            shares = [within[mine][which[mine] == i] for mine in (Ranks(r, ranks.readers).share(self.size) for r in range(ranks.readers))]
            own = shares[ranks.reader]
            rows = stream.rows(own if len(own) else within[which == i][:1], step)
            found.append((stream, count, rows if len(own) else rows.blank(), max(map(len, shares))))
        return found

    def losses(
        self,
        model: Transformer,
        step: int,
        *,
        micro: int,
        dtype: torch.dtype,
        ranks: Ranks = ALONE,
        scoring: Scoring = PLAIN,
    ) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """The loss of a step, a micro-batch at a time; of several ranks, each its part, times the number of those that read."""
        parts = self.parts(step, ranks)
        predicted = np.sum(ranks.gather_readers([examples.predicted for _, _, examples, _ in parts]), axis=0)
        for (stream, rows, examples, most), targets in zip(parts, predicted.tolist(), strict=True):
            share, targets = rows / self.size, max(1, targets)
            for start in range(0, most, micro):
                # Ranks go forward and backward together: one whose rows are at an end goes on with a row that has nothing to predict.
                part = examples.part(start, start + micro) if start < len(examples) else examples.part(0, 1).blank()
                found = examples_loss(model, part, dtype, scoring)
                loss = share * found.minimised / targets
                numbers = {"tokens": float(part.tokens), f"loss.{stream.name}": found.nats / targets}
                if found.pairs is not None:
                    loss = loss + share * found.pairs / rows
                    numbers[f"loss.{stream.name}.follows"] = float(found.pairs.detach()) / rows
                if found.router is not None:
                    loss = loss + found.router / self.size
                    numbers["loss.router"] = float(found.router.detach()) / self.size
                if found.text_bytes:
                    numbers |= {"nats": found.text_nats, "bytes": float(found.text_bytes)}
                yield loss * ranks.readers, {"loss": float(loss.detach()), **numbers}
