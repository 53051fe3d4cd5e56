"""One prompt, read slice by slice, from where its known beginning ends: others write between two slices.

    prompt ─→ Prefixes.load ─→ read(most), read(most), ... ─→ Read, for rows of a running batch
                                └─→ Prefixes.keep, so that the next prompt may go on from there at once

What a later slice sees of an earlier one are its keys and values, exactly as in one reading: slices change results by rounding at most. An
encoder sees both ways, and experts with a capacity choose among the tokens read together: such models read a prompt at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from norma.generate.prefixes import Prefixes
from norma.generate.reading import ROUND, Read, Reader
from norma.nn import Cache


class Prefill:
    """A prompt that is being read.

    Args:
        look: whether its beginning may be known; of what is known no states are made.

    Attributes:
        done: what has come of it, for one row; None: there is more to read.
        states: (T, W) the hidden states of the slice that was read last, where prompts are read in slices.
    """

    def __init__(self, reader: Reader, prompt: Sequence[int], prefixes: Prefixes | None = None, *, look: bool = True) -> None:
        self.reader, self.prompt, self.look = reader, tuple(prompt), look
        self.prefixes = None if reader.whole else prefixes
        self.size = -(-len(self.prompt) // ROUND) * ROUND  # slots: the prompt, and in front of it what makes lengths round
        self.front = self.size - len(self.prompt)
        self.cache: Cache | None = None  # made when the reading begins, as others may read the same beginning until then
        self.done: Read | None = None
        self.states = torch.empty(0, reader.model.config.width)

    @torch.no_grad()
    def read(self, most: int) -> int:
        """Read on, about ``most`` tokens; how many that were."""
        if self.reader.whole:
            self.done = self.reader.read([self.prompt])
            return len(self.prompt)
        cache = self.cache = self.cache or self._begin()
        start, front, device = cache.length, self.front, self.reader.device
        end = min(self.size, start + max(ROUND, most // ROUND * ROUND))
        pad = self.reader.model.config.pad_id or 0
        ids = [pad] * (front - start) + list(self.prompt[max(0, start - front) : end - front])
        positions = (torch.arange(start, end, device=device) - front).clamp(min=0)[None]
        hidden = self.reader.model.transformer.hidden(
            torch.tensor([ids], device=device), positions_BT=positions, cache=cache, dtype=self.reader.dtype
        )
        self.states = hidden[0, max(0, front - start) :]
        if self.prefixes is not None:
            self.prefixes.keep(self.prompt[: end - front], cache, front)
        if end == self.size:
            self.done = Read(cache, hidden[:, -1], positions[:, -1] + 1, torch.zeros(1, dtype=torch.int64, device=device))
        return end - start

    def _begin(self) -> Cache:
        reader = self.reader
        cache = Cache(reader.model.config, 1, self.size, reader.dtype, reader.device)
        cache.begins = torch.tensor([self.front], device=reader.device)
        known = 0 if self.prefixes is None or not self.look else self.prefixes.load(self.prompt, cache, self.front)
        if known:  # the last token has to be read in any case: its state foretells the answer
            cache.length = min((self.front + known) // ROUND * ROUND, self.size - ROUND)
        return cache
