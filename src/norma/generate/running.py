"""A batch that never ends: requests join it and leave it while others write. What a server needs, and `Slots` cannot do: how each row is
sampled, what it may write, and how many rows there are, differ and change.

    prompt ─→ reading: Prefill, slice by slice ─→ Ask ─→ join: Cache.take ─→ first Token      step: every row's next Token
                                                                                           leave: finished, or nobody waits any more

A prompt is read by itself, and a row's random numbers are its own: company changes what a row writes by rounding at most.

Letters: B rows, W width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from norma.generate.prefill import Prefill
from norma.generate.prefixes import Prefixes
from norma.generate.reading import Reader, check_prompts
from norma.generate.sampling import Sampling, choose, row_keys
from norma.lm import LanguageModel
from norma.nn import Cache
from norma.nn.layers import packed
from norma.nn.stack import Memory

ROUND = 32  # slots are added in such steps, so that matrix products see few shapes
THIN = 1 / 4  # of the rows are free before they are given up: moving the cache costs time too


class Constraint(Protocol):
    """What an answer may consist of, token by token (a JSON schema, say)."""

    def allowed(self) -> Tensor:
        """(V,) bool: the tokens that may come next."""

    def accept(self, token: int) -> None:
        """``token`` was written."""


@dataclass(frozen=True, eq=False)
class Ask:
    """One answer that somebody wants.

    Args:
        number: under which its random numbers are found, beside the seed.
        top: report log p of each token and of so many of the likeliest; None: of none.
    """

    prompt: tuple[int, ...]
    sampling: Sampling
    number: int = 0
    top: int | None = None
    constraint: Constraint | None = None


@dataclass(frozen=True)
class Token:
    """A token that was written; ``logprob`` in nats is the model's own (temperature 1, nothing cut or forbidden); NaN: not asked for."""

    id: int
    logprob: float = float("nan")
    top: tuple[tuple[int, float], ...] = field(default=())


Written = list[tuple[Ask, Token]]


class RunningBatch:
    """The rows that write now. Made and used in one thread, within ``working_weights(model.transformer, dtype)``.

    ``prefixes``: where beginnings of prompts are kept; None: each prompt is read from its first token.
    """

    def __init__(self, model: LanguageModel, dtype: torch.dtype, prefixes: Prefixes | None = None) -> None:
        self.model, self.network, self.dtype, self.prefixes = model, model.transformer, dtype, prefixes
        self.reader = Reader(model, dtype)
        self.weight = packed(self.network.head_weight().detach().to(dtype))
        self.rows: list[Ask | None] = []
        self.cache: Cache | None = None
        self.token, self.position, self.key, self.place = (torch.zeros(0, dtype=torch.int64, device=self.reader.device) for _ in range(4))

    @property
    def busy(self) -> int:
        """Rows that write."""
        return sum(row is not None for row in self.rows)

    # ── come and go ──
    def reading(self, prompt: Sequence[int]) -> Prefill:
        """A prompt to be read before it is joined. Raises NormaError for one that cannot be read."""
        check_prompts(self.model, [prompt])
        return Prefill(self.reader, prompt, self.prefixes)

    @torch.no_grad()
    def join(self, asks: Sequence[Ask], reading: Prefill | None = None) -> Written:
        """Draw the first tokens of ``asks``, all of one prompt that has been read; None: it is read here, at once."""
        prompt = asks[0].prompt
        reading = reading or self.reading(prompt)
        while (read := reading.done) is None:
            reading.read(len(prompt))
        which = read.which.expand(len(asks))
        rows = self._free(len(asks), self.reader.extent(prompt))
        cache = self.cache
        assert cache is not None
        here = torch.tensor(rows, device=self.token.device)
        if self.reader.two_stacks:
            others = torch.tensor([i for i, row in enumerate(self.rows) if row is not None], dtype=torch.int64, device=here.device)
            cache.remember(here, read.cache, which, others)
        cache.take(here, read.cache, which)
        for row, ask in zip(rows, asks, strict=True):
            self.rows[row] = ask
        self._look()
        self.key[here] = torch.cat([row_keys(ask.sampling.seed, [ask.number], here.device) for ask in asks])
        self.place[here] = 0
        self.position[here] = read.after[which]
        written = self._draw(read.last[which], rows)
        self.place[here] = 1
        return written

    def leave(self, asks: Iterable[Ask]) -> None:
        """These write no more; those that have left already are passed over."""
        gone = set(map(id, asks))
        rows = [i for i, row in enumerate(self.rows) if row is not None and id(row) in gone]
        if not rows or self.cache is None or self.cache.begins is None:
            return
        for row in rows:
            self.rows[row] = None
        self.cache.begins[rows] = self.cache.length
        if not self.busy:
            self.rows, self.cache = [], None
            self.token, self.position, self.key, self.place = (x[:0] for x in (self.token, self.position, self.key, self.place))
            return
        if len(self.rows) - self.busy >= max(1, THIN * len(self.rows)):
            self._keep([i for i, row in enumerate(self.rows) if row is not None])
        self._look()

    def _free(self, count: int, extent: int) -> list[int]:
        """Rows without an answer, made if there are too few, in a cache that a prompt of ``extent`` tokens fits in."""
        if self.cache is None:
            size = _rounded(extent)
            self.cache = Cache(self.network.config, 0, size + ROUND, self.dtype, self.token.device)
            self.cache.begins = torch.zeros(0, dtype=torch.int64, device=self.token.device)
            self.cache.length = size
        idle = [i for i, row in enumerate(self.rows) if row is None][:count]
        more = count - len(idle)
        front = _rounded(max(0, extent - self.cache.length))
        if more or front:
            self.cache.widen(rows=more, front=front)
            self.token, self.position, self.key, self.place = (
                torch.cat((x, x.new_zeros(more))) for x in (self.token, self.position, self.key, self.place)
            )
            idle += range(len(self.rows), len(self.rows) + more)
            self.rows += [None] * more
        return idle

    def _keep(self, rows: list[int]) -> None:
        assert self.cache is not None
        kept = torch.tensor(rows, device=self.token.device)
        self.cache.keep(kept)
        self.token, self.position, self.key, self.place = (x[kept] for x in (self.token, self.position, self.key, self.place))
        self.rows = [self.rows[i] for i in rows]

    # ── write ──
    @torch.no_grad()
    def step(self) -> Written:
        """One more token for every row. Idle rows go along; they look at nothing but themselves."""
        cache, config = self.cache, self.network.config
        if cache is None:
            return []
        if cache.length == cache.size:
            self._make_room(cache)
        memory = Memory(cache.keys[:0, 0, 0]) if self.reader.two_stacks else None  # nothing is read from it: the cache has keys and values
        last = self.network.hidden(self.token[:, None], positions_BT=self.position[:, None], cache=cache, dtype=self.dtype, memory=memory)
        self.position = (self.position + 1).clamp(max=config.max_positions - 1)  # an idle row's may run on
        busy = [i for i, row in enumerate(self.rows) if row is not None]
        written = self._draw(last[:, -1] if len(busy) == len(self.rows) else last[busy, -1], busy)
        self.place = self.place + 1
        return written

    def _draw(self, last_BW: Tensor, rows: Sequence[int]) -> Written:
        """The next tokens of ``rows``, whose last hidden states are (B, W)."""
        plain = self.network.scores(self.network.features(last_BW), self.weight)
        asks = [ask for row in rows if (ask := self.rows[row]) is not None]
        logits = plain
        if any(ask.constraint for ask in asks):
            logits = plain.clone()
            for i, ask in enumerate(asks):
                if ask.constraint is not None:
                    logits[i].masked_fill_(~ask.constraint.allowed(), -torch.inf)
        tokens = torch.empty(len(asks), dtype=torch.int64, device=logits.device)
        here = torch.tensor(list(rows), device=logits.device)
        for sampling, group in _alike(asks).items():
            which = torch.tensor(group, device=logits.device)
            tokens[which], _ = choose(logits[which], sampling, self.key[here[which]], self.place[here[which]])
        self.token[here] = tokens
        ids = tokens.tolist()
        for ask, token in zip(asks, ids, strict=True):
            if ask.constraint is not None:
                ask.constraint.accept(token)
        asked = [i for i, ask in enumerate(asks) if ask.top is not None]
        wanted = [ids[i] for i in asked], [asks[i].top or 0 for i in asked]
        numbers = dict(zip(asked, told(plain[asked], *wanted), strict=True)) if asked else {}
        return [(ask, numbers.get(i, Token(ids[i]))) for i, ask in enumerate(asks)]

    def _earliest(self) -> int:
        """The first slot that a row still needs."""
        assert self.cache is not None and self.cache.begins is not None
        begins = self.cache.begins.tolist()
        return min((begins[i] for i, row in enumerate(self.rows) if row is not None), default=self.cache.length)

    def _look(self) -> None:
        if self.cache is not None:
            self.cache.first = self._earliest()

    def _make_room(self, cache: Cache) -> None:
        # Moving to the left is worth it where much is free; else the buffer grows. No row is longer than the model's positions.
        free = self._earliest()
        if free >= max(ROUND, cache.size // 4):
            cache.shift(free)
        else:
            cache.widen(back=max(ROUND, _rounded(cache.size // 4)))
        self._look()


def _rounded(slots: int) -> int:
    return -(-slots // ROUND) * ROUND


def _alike(asks: Sequence[Ask]) -> dict[Sampling, list[int]]:
    """Which rows are drawn in the same way: all that `choose` looks at."""
    groups: dict[Sampling, list[int]] = {}
    for i, ask in enumerate(asks):
        groups.setdefault(replace(ask.sampling, max_new_tokens=1, seed=0, stop=()), []).append(i)
    return groups


def told(logits_BV: Tensor, ids: Sequence[int], most: Sequence[int]) -> list[Token]:
    """Tokens with their log p and the likeliest beside them."""
    log_p = logits_BV.log_softmax(dim=-1)
    own = log_p.gather(1, torch.tensor(list(ids), device=log_p.device)[:, None]).squeeze(1).tolist()
    best = log_p.topk(min(max(most), log_p.shape[1]), dim=-1)
    rows = zip(ids, own, best.indices.tolist(), best.values.tolist(), most, strict=True)
    return [Token(id, value, tuple(zip(indices[:n], values[:n], strict=True))) for id, value, indices, values, n in rows]
