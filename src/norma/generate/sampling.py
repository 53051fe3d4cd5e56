"""How the next token is chosen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
    """One answer. ``ids`` hold the end token when the model gave one; ``text`` does not."""

    ids: tuple[int, ...]
    text: str
    finish_reason: str  # "stop" or "length"


def choose(logits_BV: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """The next token of every row, (B,) int64, from fp32 logits (B, V)."""
    if sampling.banned:
        logits_BV = logits_BV.index_fill(1, torch.tensor(sampling.banned, device=logits_BV.device), -torch.inf)
    if sampling.temperature == 0:
        return logits_BV.argmax(dim=-1)
    scaled = logits_BV / sampling.temperature
    if sampling.top_k:
        least = scaled.topk(min(sampling.top_k, scaled.shape[-1]), dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    probabilities = scaled.softmax(dim=-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        ordered[ordered.cumsum(dim=-1) - ordered >= sampling.top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter_(1, order, ordered)
    # argmax of p / Exponential(1) is a draw from p: one pass over the vocabulary, no cumulative sum.
    noise = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities / noise).argmax(dim=-1)
