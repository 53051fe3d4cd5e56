"""How the next token is chosen.

    scores ─→ banned out, / temperature, softmax ─→ top-k, top-p ─→ a race of blocks of tokens ─→ a race within the winner ─→ token
                                                                     └── numbers of (seed, row, place), whatever is beside it

A race: of exponential numbers with rates p the least belongs to i with probability p_i. A block's rate is the sum of its tokens', so
that two short races do for one over the whole vocabulary, and a small change of p changes the token as seldom as it can.

Letters: B rows, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Sampling:
    """How to write.

    Args:
        max_new_tokens: stop after so many tokens.
        temperature: logits are divided by it; 0 always takes the likeliest token (greedy).
        top_k: sample among the k likeliest tokens only; 0 for all.
        top_p: sample among the likeliest tokens that hold this much probability (nucleus; Holtzman et al., 1904.09751).
        seed: of the random numbers; the same seed, prompts and weights give the same text.
        stop: strings that end an answer; they are cut off.
        banned: ids of tokens that are never written.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    banned: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError("max_new_tokens >= 1, temperature >= 0, top_k >= 0 and 0 < top_p <= 1 are needed")


@dataclass(frozen=True)
class Completion:
    """One answer. ``ids`` hold the end token when the model gave one; ``text`` does not.

    ``logprobs``: log p of each id in nats as the engine saw it, at the sampling's temperature (greedy: at 1), banned tokens left out,
    before top-k and top-p. A trainer's own numbers differ by rounding; how much is worth a look (``mismatch``).
    """

    ids: tuple[int, ...]
    text: str
    finish_reason: str  # "stop" or "length"
    logprobs: tuple[float, ...] = field(default=(), compare=False)


def choose(logits_BV: Tensor, sampling: Sampling, keys_B: Tensor, places_B: Tensor) -> tuple[Tensor, Tensor]:
    """The next token of every row, (B,) int64, and its log p, (B,) fp32, from fp32 logits (B, V).

    ``keys`` (B,) int64: :func:`row_keys`; ``places`` (B,) int64: how many tokens a row has written.
    """
    if sampling.banned:
        logits_BV = logits_BV.index_fill(1, torch.tensor(sampling.banned, device=logits_BV.device), -torch.inf)
    if sampling.temperature == 0:
        best, token = logits_BV.max(dim=-1)
        return token, best - logits_BV.logsumexp(dim=-1)
    p_BV = (logits_BV if sampling.temperature == 1 else logits_BV / sampling.temperature).softmax(dim=-1)
    kept_BV = p_BV
    if sampling.top_k:
        least = p_BV.topk(min(sampling.top_k, p_BV.shape[-1]), dim=-1).values[:, -1:]
        kept_BV = p_BV.masked_fill(p_BV < least, 0.0)
        kept_BV = kept_BV / kept_BV.sum(dim=-1, keepdim=True)
    if sampling.top_p < 1:
        kept_BV = nucleus(kept_BV, sampling.top_p)
    token = race(kept_BV, keys_B, places_B)
    return token, p_BV.gather(1, token[:, None]).squeeze(1).log()


def nucleus(p_BV: Tensor, share: float) -> Tensor:
    """(B, V): ``p`` of the likeliest tokens that hold ``share`` of it, 0 elsewhere. The whole vocabulary is sorted only if it has to be."""
    for most in (min(LIKELIEST, p_BV.shape[1]), p_BV.shape[1]):
        ordered, order = p_BV.topk(most, dim=-1)
        held = ordered.cumsum(dim=-1)
        if most == p_BV.shape[1] or bool((held[:, -1] >= share).all()):
            break
    ordered = ordered.masked_fill(held - ordered >= share, 0.0)
    return torch.zeros_like(p_BV).scatter_(1, order, ordered)


LIKELIEST = 256  # tokens that hold most nuclei


def race(p_BV: Tensor, keys_B: Tensor, places_B: Tensor) -> Tensor:
    """A draw from every row of ``p`` (not negative, not all zero, any sum), (B,) int64."""
    B, V = p_BV.shape
    width = 1 << round(math.log2(V) / 2)
    blocks = -(-V // width)
    p_BNW = (F.pad(p_BV, (0, blocks * width - V)) if V % width else p_BV).view(B, blocks, width)
    times = exponentials(keys_B, places_B, blocks + width)
    # argmax of rate / Exponential(1) is argmin of Exponential(rate).
    block = (p_BNW.sum(dim=-1) / times[:, :blocks]).argmax(dim=-1)
    within = p_BNW[torch.arange(B, device=block.device), block]
    return block * width + (within / times[:, blocks:]).argmax(dim=-1)


# ── numbers that belong to a place in a text, not to a history of draws ──
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)  # Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014): SplitMix64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)


def row_keys(seed: int, rows: Sequence[int], device: torch.device) -> Tensor:
    """(B,) int64: the key of each row's random numbers. Equal (seed, row) give equal numbers, whatever runs beside them."""
    start = torch.tensor([seed % (1 << 64) - (1 << 63)], device=device)
    return _mixed(_mixed(start) + torch.tensor(list(rows), dtype=torch.int64, device=device) * _GOLDEN)


def exponentials(keys_B: Tensor, places_B: Tensor, count: int) -> Tensor:
    """(B, count) fp32 numbers with rate 1, functions of a row's key and its place alone; the same on every machine but for rounding."""
    start = _mixed(keys_B ^ _mixed(places_B * _GOLDEN + 1))
    bits = _mixed(start[:, None] + torch.arange(1, count + 1, device=keys_B.device) * _GOLDEN)
    uniform = (((bits >> 11) & ((1 << 53) - 1)).double() + 0.5) * 2.0**-53
    return -uniform.log().float()


def _mixed(x: Tensor) -> Tensor:
    """SplitMix64's last step. int64 shifts keep the sign, which the masks take away; products wrap."""
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _FIRST
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _SECOND
    return x ^ ((x >> 31) & ((1 << 33) - 1))
