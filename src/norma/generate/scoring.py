"""What a model thinks of texts that it is given: log p of every token, read slice by slice like prompts, so that others write in between.

texts ─→ Prefill, from the first token on (each one's state is needed) ─→ states of a slice ─→ 128 scores at a time ─→ Token, Token, ...
            └─→ Prefixes: who goes on writing behind such a text does not read it again
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from norma.generate.prefill import Prefill
from norma.generate.running import RunningBatch, Token, told

SCORED = 128  # tokens whose scores over the vocabulary are held at one time

Told = list[Token | None]  # of the first token of a text nobody can say how likely it was


class Scores:
    """Texts being scored, one after the other; in the thread, and within the working weights, of a running batch.

    Args:
        texts: ids, at least one each and no more than the model reads.
        top: so many of the likeliest tokens are told beside each.
    """

    def __init__(self, batch: RunningBatch, texts: Sequence[Sequence[int]], top: int) -> None:
        self.batch, self.reader, self.texts, self.top = batch, batch.reader, [list(ids) for ids in texts], top
        self.told: list[Told] = [[None] for _ in texts]
        self._at = 0  # the text that is being read
        self._prefill: Prefill | None = None

    @torch.no_grad()
    def go_on(self, most: int) -> list[Told] | None:
        """Read on, about ``most`` tokens of one text; the numbers of all when they are all read."""
        if self._at < len(self.texts):
            ids = self.texts[self._at]
            if self.reader.whole:
                device = self.reader.device
                self._hear(self.reader.model.transformer.hidden(torch.tensor([ids], device=device), dtype=self.reader.dtype)[0])
            else:
                reading = self._prefill = self._prefill or Prefill(self.reader, ids, self.batch.prefixes, look=False)
                reading.read(most)
                self._hear(reading.states)
        return self.told if self._at == len(self.texts) else None

    def _hear(self, states_TW: Tensor) -> None:
        """Each state says what the model expects of the token behind it; the last one of a text says nothing that was asked."""
        ids, here = self.texts[self._at], self.told[self._at]
        network = self.batch.network
        for start in range(0, len(states_TW), SCORED):
            after = ids[len(here) : len(here) + min(SCORED, len(states_TW) - start)]
            if after:
                scores = network.scores(network.features(states_TW[start : start + len(after)]), self.batch.weight)
                here += told(scores, after, [self.top] * len(after))
        if len(here) == len(ids):
            self._at, self._prefill = self._at + 1, None
