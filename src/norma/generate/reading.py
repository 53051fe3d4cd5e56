"""What a model does before it writes: it reads.

    decoder           a prefix that all prompts share, once ─→ each distinct prompt's rest, once, padded on the left ─→ Read
    encoder-decoder   each distinct source, once, by the encoder ─→ the decoder reads its start token               ─→ Read

Letters: P distinct prompts, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.nn import Cache, Mask

SHARED = 16  # tokens from which a common prefix is read by itself
ROUND = 8  # lengths are rounded up to it, so that matrix products see few shapes

Prompts = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Read:
    """Distinct prompts that have been read.

    Attributes:
        cache: their keys and values, (P, ...); of an encoder-decoder also what the encoder has read (``cache.cross``).
        last: (P, W) the hidden state that foretells the first token of the answer.
        after: (P,) int64, that token's position.
        which: (B,) int64, the row of each prompt that was asked for.
    """

    cache: Cache
    last: Tensor
    after: Tensor
    which: Tensor


def check_prompts(model: LanguageModel, prompts: Prompts) -> None:
    """Raises NormaError for a prompt that is empty or leaves no room for an answer."""
    limit = model.config.max_positions
    most = limit if model.config.encoder_layers else limit - 1
    for i, prompt in enumerate(prompts):
        which = f"prompt {i}" if len(prompts) > 1 else "the prompt"
        if not prompt:
            raise NormaError(f"{which} is empty")
        if len(prompt) > most:
            raise NormaError(f"{which} has {len(prompt)} tokens; this model reads at most {most}", mend="Shorten it")


class Reader:
    """Reads prompts for one call. ``prompts``: all that will come, to find what they share; none: nothing is shared."""

    def __init__(self, model: LanguageModel, dtype: torch.dtype, prompts: Prompts = ()) -> None:
        self.model, self.dtype, self.device = model, dtype, model.transformer.device
        self.two_stacks = bool(model.config.encoder_layers)
        experts = model.config.experts
        dropping = experts is not None and experts.capacity is not None  # a token's fate then depends on what is read with it
        self.whole = self.two_stacks or dropping  # a prompt is read at once, or not as it should be
        self.prefix = () if self.whole else shared_prefix(prompts)
        self._prefix_cache: Cache | None = None

    def extent(self, prompt: Sequence[int]) -> int:
        """Slots of a decoder's cache that a prompt takes."""
        return 1 if self.two_stacks else len(prompt)

    def room(self, prompt: Sequence[int]) -> int:
        """Tokens that an answer may have at most."""
        return self.model.config.max_positions - self.extent(prompt)

    def read(self, prompts: Prompts, room: int = 0) -> Read:
        """Read prompts; equal ones once. ``room``: slots for what is written into the same cache."""
        place = {prompt: i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        which = torch.tensor([place[tuple(p)] for p in prompts], device=self.device)
        distinct = list(place)
        if self.two_stacks:
            return self._sources(distinct, which, room)
        return self._prompts(distinct, which, room)

    def _prompts(self, distinct: list[tuple[int, ...]], which: Tensor, room: int) -> Read:
        network, before = self.model.transformer, len(self.prefix)
        rests = [prompt[before:] for prompt in distinct]
        ids, real = self._padded(rests, left=True)
        length = ids.shape[1]
        cache = Cache(self.model.config, len(distinct), before + length + room, self.dtype, self.device)
        positions = (real.long().cumsum(1) - 1).clamp(min=0) + before
        if before:
            shared = self._shared()
            cache.keys[:, :, :, :before], cache.values[:, :, :, :before] = shared.keys, shared.values
            cache.visible[:, :before], cache.positions[:, :before] = True, shared.positions
            cache.length = before
            cache.visible[:, before : before + length] = real
        else:
            cache.begins = length - torch.tensor([len(p) for p in rests], device=self.device)
        last = network.hidden(ids, positions_BT=positions, cache=cache, dtype=self.dtype)[:, -1]
        return Read(cache, last, positions[:, -1] + 1, which)

    def _shared(self) -> Cache:
        if self._prefix_cache is None:
            cache = Cache(self.model.config, 1, len(self.prefix), self.dtype, self.device)
            cache.begins = torch.zeros(1, dtype=torch.int64, device=self.device)
            self.model.transformer.hidden(torch.tensor([self.prefix], device=self.device), cache=cache, dtype=self.dtype)
            self._prefix_cache = cache
        return self._prefix_cache

    def _sources(self, distinct: list[tuple[int, ...]], which: Tensor, room: int) -> Read:
        network, count = self.model.transformer, len(distinct)
        ids, real = self._padded(distinct, left=False)
        memory = network.encode(ids, Mask(padding=real), dtype=self.dtype)
        cache = Cache(self.model.config, count, 1 + room, self.dtype, self.device)
        cache.begins = torch.zeros(count, dtype=torch.int64, device=self.device)
        start = torch.full((count, 1), start_token(self.model), device=self.device)
        zero = torch.zeros((count, 1), dtype=torch.int64, device=self.device)
        last = network.hidden(start, positions_BT=zero, cache=cache, dtype=self.dtype, memory=memory)[:, -1]
        cache.cross_rows, cache.cross_lengths = torch.arange(count, device=self.device), real.sum(1)
        return Read(cache, last, zero[:, 0] + 1, which)

    def _padded(self, rows: Sequence[Sequence[int]], *, left: bool) -> tuple[Tensor, Tensor]:
        """(ids, real), (P, longest, rounded up)."""
        longest = -(-max(map(len, rows)) // ROUND) * ROUND
        ids = torch.full((len(rows), longest), self.model.transformer.config.pad_id or 0)
        real = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            here = slice(longest - len(row), longest) if left else slice(0, len(row))
            ids[i, here], real[i, here] = torch.tensor(row), True
        return ids.to(self.device), real.to(self.device)


def shared_prefix(prompts: Prompts) -> tuple[int, ...]:
    """What all prompts begin with, short of the last token of the shortest; () where that is little, or they are all the same."""
    distinct = set(map(tuple, prompts))
    if len(distinct) < 2:
        return ()
    first, last = min(distinct), max(distinct)  # what these two begin with, all that stand between them in order begin with
    most = min(map(len, distinct)) - 1
    length = next((i for i in range(most) if first[i] != last[i]), most)
    return first[:length] if length >= SHARED else ()


def start_token(model: LanguageModel) -> int:
    """What the decoder behind an encoder begins with."""
    start = model.transformer.start_id
    if start is None:
        raise NormaError(
            "nothing says which token this model's decoder begins with",
            where=model.name,
            mend="Put decoder_start_token_id into config.json",
        )
    return start
