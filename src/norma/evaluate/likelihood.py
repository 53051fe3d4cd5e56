"""Bits per byte and KL: what a model knows of text, and how far it has moved from another model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from norma.base.random import keyed
from norma.lm import LanguageModel
from norma.objectives.alternating import keep_first, masked_next_token
from norma.objectives.masking import Masking, MaskTokens, mask_tokens
from norma.objectives.policy_gradient import kl_estimate
from norma.text.packing import IGNORE, Batches, Rows
from norma.text.sequences import Sequences
from norma.text.shards import Shards
from norma.text.words import SPECIAL, WORD
from norma.train.examples import Examples, examples_loss
from norma.train.scoring import Group, answer_logprobs, split_groups
from norma.train.streams import NextToken, Stream

MASKING = Masking()  # 15%, 80/10/10


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
            batch = batches.assemble(bins[start : start + batches.size])
            nats += examples_loss(model.transformer, Examples(batch.ids, batch.targets, batch.documents, batch.positions), dtype).nats
    return nats / math.log(2) / sum(len(t.encode()) for t in texts)


def text_bits(model: LanguageModel, texts: Sequence[str], *, blocks: int = 24, dtype: torch.dtype = torch.float32) -> list[list[float]]:
    """[bits, bytes] of ``blocks`` equal parts of the texts in their order: what an interval of a change is drawn from."""
    count = max(1, min(blocks, len(texts)))
    parts = [texts[len(texts) * i // count : len(texts) * (i + 1) // count] for i in range(count)]
    sizes = [sum(len(t.encode()) for t in part) for part in parts]
    return [[bits_per_byte(model, part, dtype=dtype) * size, float(size)] for part, size in zip(parts, sizes, strict=True) if size]


def masked_nats(
    model: LanguageModel, texts: Sequence[str], *, length: int = 256, masking: Masking = MASKING, dtype: torch.dtype = torch.float32
) -> float:
    """Nats a masked token of the texts: what a masked language model does not know. Which tokens are masked depends on nothing else.

    Not comparable across tokenizers, nor with :func:`bits_per_byte`: both sides of a token are seen. Of a decoder, token t is read off
    place t - 1 (see :mod:`norma.objectives.alternating`). A text's first token is never masked, so that both are asked the same.
    """
    tokenizer = model.tokenizer
    head = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    tail = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    rows = Rows.build(((ids, [True] * len(ids)) for ids in (head + ids + tail for ids in tokenizer.encode_batch(texts))), length)
    batches = Batches(rows, length=length, size=16, seed=0, pad=tokenizer.pad_id)
    tokens = MaskTokens(tokenizer.objective_tokens("masked")[0], tokenizer.special_ids, len(tokenizer))
    nats, predicted, bins = 0.0, 0, batches.bins(0)
    with torch.no_grad():
        for start in range(0, len(bins), batches.size):
            batch = batches.assemble(bins[start : start + batches.size])
            flags = np.where(np.isin(batch.ids, tokenizer.special_ids), SPECIAL, WORD).astype(np.uint8)
            flags = keep_first(flags, batch.documents)
            made = [
                mask_tokens(ids, documents, flag, tokens=tokens, masking=masking, random=keyed(0, start + b, use="masked nats"))
                for b, (ids, documents, flag) in enumerate(zip(batch.ids, batch.documents, flags, strict=True))
            ]
            ids, targets = (np.stack(arrays) for arrays in zip(*made, strict=True))
            if model.config.kind == "decoder":
                targets = masked_next_token(targets, batch.documents)
            examples = Examples(ids, targets, batch.documents, batch.positions, causal=False)
            nats += examples_loss(model.transformer, examples, dtype).nats
            predicted += examples.predicted
    return nats / max(1, predicted)


def stream_nats(model: LanguageModel, stream: Stream, rows: int, *, dtype: torch.dtype = torch.float32) -> float:
    """Nats a target of the first ``rows`` rows of an objective over held-out text. Comparable for equal tokens and objective only."""
    nats, predicted = 0.0, 0
    with torch.no_grad():
        for start in range(0, rows, 16):
            examples = stream.rows(np.arange(start, min(start + 16, rows)), 0)
            nats += examples_loss(model.transformer, examples, dtype).nats
            predicted += examples.predicted
    return nats / max(1, predicted)


def shard_bits(model: LanguageModel, shards: Shards, *, length: int = 256, dtype: torch.dtype = torch.float32) -> float:
    """Bits per byte of tokenised text, what stands between its sentences (control tokens) paid for.

    As -log p(text, control tokens) >= -log p(text), that is an upper bound of :func:`bits_per_byte` for a model that reads with them.
    """
    stream = NextToken(Sequences(shards, length=length, seed=0))
    nats = 0.0
    with torch.no_grad():
        for start in range(0, len(stream), 16):
            examples = stream.rows(np.arange(start, min(start + 16, len(stream))), 0)
            nats += examples_loss(model.transformer, examples, dtype).nats
    return nats / math.log(2) / shards.bytes


def window_nats(model: LanguageModel, texts: Sequence[str], *, length: int, stride: int, dtype: torch.dtype = torch.float32) -> float:
    """Nats a token of the texts as one stream without BOS or end, read ``length`` tokens at a time; of a character tokenizer, a character.

    A window starts every ``stride`` tokens, and of each but the first only the last ``stride`` targets count: every token of the stream
    but the first is predicted once. With ``stride`` = ``length`` windows lie end to end, and a target has 1 to ``length`` tokens before
    it, each as often: what nanoGPT's estimate_loss measures on windows drawn by chance. A small stride lets nearly all see ``length``.
    """
    if not 1 <= stride <= length:
        raise ValueError(f"stride {stride} must lie between 1 and length {length}")
    stream = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in model.tokenizer.encode_batch(texts)])
    starts = list(range(0, max(1, len(stream) - 1 - length + stride), stride))
    ids = np.zeros((len(starts), length), dtype=np.int64)
    targets, real = np.full(ids.shape, IGNORE, dtype=np.int64), np.zeros(ids.shape, dtype=np.int64)
    for b, start in enumerate(starts):
        n = min(length, len(stream) - 1 - start)
        counted = 0 if start == 0 else length - stride
        ids[b, :n], real[b, :n] = stream[start : start + n], 1
        targets[b, counted:n] = stream[start + counted + 1 : start + n + 1]
    positions = np.broadcast_to(np.arange(length), ids.shape)
    nats, rows = 0.0, max(1, 16384 // length)
    with torch.no_grad():
        for at in range(0, len(starts), rows):
            part = slice(at, at + rows)
            nats += examples_loss(model.transformer, Examples(ids[part], targets[part], real[part], positions[part].copy()), dtype).nats
    return nats / max(1, len(stream) - 1)


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
