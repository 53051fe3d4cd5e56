"""Rows of a batch that write side by side, each for a prompt of its own; a row that is free takes the next prompt.

    prompts ─→ admit: Reader ─→ Cache.take ─→ first tokens        step: tokens ─→ hidden states ─→ next tokens of all rows
                                                                  free, thin: rows whose answers are finished

Letters: B rows, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from norma.generate.reading import Reader
from norma.generate.sampling import Sampling, choose, row_keys
from norma.nn import Cache
from norma.nn.layers import packed
from norma.nn.stack import Memory

SLACK = 64  # slots beyond what the longest answer needs: how often everything has to move to the left
IDLE = -1

Drawn = tuple[list[int], list[int], list[float]]
"""Rows, the token each wrote, its log p."""


class Slots:
    """The state of a batch.

    Attributes:
        serving: the prompt (its number) that each row answers; ``IDLE``: none.
    """

    def __init__(self, reader: Reader, sampling: Sampling, prompts: Sequence[Sequence[int]], numbers: Sequence[int], batch: int) -> None:
        """``numbers``: under which each prompt's random numbers are known."""
        self.reader, self.sampling, self.prompts, self.numbers = reader, sampling, prompts, numbers
        self.network, device = reader.model.transformer, reader.device
        self.weight = packed(self.network.head_weight().detach().to(reader.dtype))
        self.longest = max(map(reader.extent, prompts))
        new = max(min(sampling.max_new_tokens, reader.room(p)) for p in prompts)
        count = min(batch, len(prompts))
        size = self.longest + new + (SLACK if count < len(prompts) else 0)
        self.serving = [IDLE] * count
        self.cache = Cache(self.network.config, count, size, reader.dtype, device)
        self.cache.begins = torch.full((count,), self.longest, device=device)
        self.cache.length = self.longest
        self.token, self.position, self.key, self.place = (torch.zeros(count, dtype=torch.int64, device=device) for _ in range(4))

    @property
    def idle(self) -> list[int]:
        """Rows without a prompt."""
        return [row for row, prompt in enumerate(self.serving) if prompt == IDLE]

    @property
    def busy(self) -> list[int]:
        """Rows that write."""
        return [row for row, prompt in enumerate(self.serving) if prompt != IDLE]

    def admit(self, rows: Sequence[int], prompts: Sequence[int]) -> Drawn:
        """Let these rows answer these prompts (their numbers), and draw their first tokens."""
        cache, others = self.cache, self.busy
        read = self.reader.read([self.prompts[p] for p in prompts])
        here = torch.tensor(list(rows), device=cache.visible.device)
        if self.reader.two_stacks:
            cache.remember(here, read.cache, read.which, torch.tensor(others, dtype=torch.int64, device=here.device))
        cache.take(here, read.cache, read.which)
        for row, prompt in zip(rows, prompts, strict=True):
            self.serving[row] = prompt
        self._look()
        self.key[here] = row_keys(self.sampling.seed, [self.numbers[p] for p in prompts], here.device)
        self.place[here] = 0
        self.position[here] = read.after[read.which]
        token, logprob = self._choose(read.last[read.which], self.key[here], self.place[here])
        self.token[here], self.place[here] = token, 1
        return list(rows), token.tolist(), logprob.tolist()

    def step(self) -> Drawn:
        """One more token for every row. Idle rows go along; they look at nothing but themselves."""
        cache, config = self.cache, self.network.config
        if cache.length == cache.size:
            self._make_room()
        memory = Memory(cache.keys[:0, 0, 0]) if self.reader.two_stacks else None  # nothing is read from it: the cache has keys and values
        last = self.network.hidden(
            self.token[:, None], positions_BT=self.position[:, None], cache=cache, dtype=self.reader.dtype, memory=memory
        )[:, -1]
        self.position = (self.position + 1).clamp(max=config.max_positions - 1)  # an idle row's may run on
        self.token, logprob = self._choose(last, self.key, self.place)
        self.place = self.place + 1
        tokens, logprobs = self.token.tolist(), logprob.tolist()
        busy = self.busy
        return busy, [tokens[row] for row in busy], [logprobs[row] for row in busy]

    def free(self, rows: Sequence[int]) -> None:
        """These rows have finished their answers."""
        assert self.cache.begins is not None
        for row in rows:
            self.serving[row] = IDLE
        self.cache.begins[list(rows)] = self.cache.length
        self._look()

    def thin(self) -> None:
        """Give up the idle rows."""
        kept = self.busy
        rows = torch.tensor(kept, device=self.token.device)
        self.cache.keep(rows)
        self.token, self.position, self.key, self.place = (x[rows] for x in (self.token, self.position, self.key, self.place))
        self.serving = [self.serving[row] for row in kept]
        self._look()

    def _choose(self, last_BW: Tensor, keys: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        return choose(self.network.scores(self.network.features(last_BW), self.weight), self.sampling, keys, places)

    def _earliest(self) -> int:
        """The first slot that a row still needs."""
        assert self.cache.begins is not None
        return min((self.cache.begins.tolist()[row] for row in self.busy), default=self.cache.length)

    def _look(self) -> None:
        self.cache.first = self._earliest()

    def _make_room(self) -> None:
        # What is left must be as long as the longest prompt: the next one to come has to end where the others end.
        self.cache.shift(min(self._earliest(), self.cache.length - self.longest))
        self._look()
