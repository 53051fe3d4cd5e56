"""Bits per byte and KL: what a model knows of text, and how far it has moved from another model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from norma.lm import LanguageModel
from norma.objectives.policy_gradient import kl_estimate
from norma.text.packing import Batches, Rows
from norma.train.scoring import Group, answer_logprobs, split_groups
from norma.train.step import language_loss


def bits_per_byte(model: LanguageModel, texts: Sequence[str], *, length: int = 256, dtype: torch.dtype = torch.float32) -> float:
    """Mean bits to write down one UTF-8 byte of the texts: -log2 p(text) / bytes(text); comparable across tokenizers.

    Each text starts after BOS and ends with the end token, whose cost counts while its bytes do not. Longer texts are read in
    pieces of ``length`` tokens that share one token, so every token is predicted once.
    """
    tokenizer = model.tokenizer
    head = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    tail = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    encoded = [head + ids + tail for ids in tokenizer.encode_batch(texts)]
    rows = Rows.build(((ids, [True] * len(ids)) for ids in encoded), length)
    batches = Batches(rows, length=length, size=16, seed=0, pad=tokenizer.pad_id)
    nats = 0.0
    with torch.no_grad():
        bins = batches.bins(0)
        for start in range(0, len(bins), batches.size):
            loss, _ = language_loss(model.transformer, batches.assemble(bins[start : start + batches.size]), dtype)
            nats += float(loss)
    return nats / math.log(2) / sum(len(t.encode()) for t in texts)


def kl_per_token(model: LanguageModel, reference: LanguageModel, groups: Sequence[Group], *, dtype: torch.dtype = torch.float32) -> float:
    """KL(model || reference) in nats a token, estimated (k3) on answers that ``model`` sampled at temperature 1."""
    total, tokens = 0.0, 0
    with torch.no_grad():
        for part in split_groups(groups, 8192):
            chosen = [groups[i] for i in part]
            own, _ = answer_logprobs(model.transformer, chosen, dtype=dtype)
            other, _ = answer_logprobs(reference.transformer, chosen, dtype=dtype)
            total += float(kl_estimate(own, other))
            tokens += len(own)
    return total / max(1, tokens)
