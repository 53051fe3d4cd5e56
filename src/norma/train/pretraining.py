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

from norma.nn import Transformer
from norma.text.mixture import Mixture
from norma.train.examples import Examples, examples_loss
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

    def parts(self, step: int, rank: int = 0, ranks: int = 1) -> list[tuple[str, int, Examples]]:
        """(stream's name, its rows in the whole step, the rank's examples) for each stream that has some in this step.

        The rows of all ranks are the same for any number of ranks; a rank may have none of a stream.
        """
        first = step * self.size
        numbers = np.arange(first, first + self.size)
        which, within = self.mixture.rows(numbers)
        mine = slice(rank * self.size // ranks, (rank + 1) * self.size // ranks)
        found = []
        for i, stream in enumerate(self.streams):
            if count := int((which == i).sum()):
                found.append((stream.name, count, stream.rows(within[mine][which[mine] == i], step)))
        return found

    def losses(self, model: Transformer, step: int, *, micro: int, dtype: torch.dtype) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """The loss of a step, a micro-batch at a time."""
        for name, rows, examples in self.parts(step):
            share, predicted = rows / self.size, max(1, examples.predicted)
            for start in range(0, len(examples), micro):
                part = examples.part(start, start + micro)
                nats, pairs = examples_loss(model, part, dtype)
                loss = share * nats / predicted
                numbers = {"tokens": float(part.tokens), f"loss.{name}": float(nats.detach()) / predicted}
                if pairs is not None:
                    loss = loss + share * pairs / rows
                    numbers[f"loss.{name}.follows"] = float(pairs.detach()) / rows
                yield loss, {"loss": float(loss.detach()), **numbers}
