"""Texts as vectors: mean pooling of a model's hidden states, for search, classifiers and retrieval.

    texts ─→ frame ([CLS] text [SEP], or BOS text) ─→ hidden states (B, T, W) ─→ pooled over real tokens (B, W) ─→ length 1

Any backbone will do; one trained with :func:`norma.objectives.contrastive.info_nce` does it well. Mean pooling beats the first token's
state (Reimers and Gurevych, 1908.10084, table 6). Letters: N texts, B texts of a batch, T tokens, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from norma.base.errors import NormaError
from norma.lm.model import LanguageModel
from norma.nn import Mask, Transformer
from norma.text.tokenizer import framed

Pooling = Literal["mean", "first", "last"]
ROUND = 32  # lengths are rounded up, so that the CPU kernels' caches stay small


def embed(model: LanguageModel, texts: Sequence[str], *, pooling: str = "mean", batch: int = 32) -> Tensor:
    """(N, W) fp32 on the CPU, each of length 1: the inner product of two is the cosine of their angle.

    Args:
        pooling: mean of the real tokens' states, or the ``first`` or ``last`` token's.
        batch: texts that are read at one time; those of like length together. Does not change the vectors beyond rounding.

    Texts longer than the model reads are cut behind their first tokens. Raises NormaError for another pooling.
    """
    return vectors(model, token_rows(model, texts), pooling=pooling, batch=batch)


def vectors(
    model: LanguageModel, rows: Sequence[Sequence[int]], *, pooling: str = "mean", batch: int = 32, dtype: torch.dtype = torch.float32
) -> Tensor:
    """As :func:`embed`, of rows of ids (:func:`token_rows`). ``dtype``: of the activations."""
    if pooling not in get_args(Pooling):
        raise NormaError(f"there is no pooling '{pooling}'", mend=f"One of {', '.join(get_args(Pooling))}")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    out = torch.zeros(len(rows), model.config.width)
    model.transformer.eval()
    with torch.no_grad():
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            found = pooled(model.transformer, [rows[i] for i in part], pooling, dtype)
            out[part] = F.normalize(found, dim=-1).cpu()
    return out


def token_rows(model: LanguageModel, texts: Sequence[str], limit: int | None = None) -> list[list[int]]:
    """Ids of each text in the tokenizer's frame, at most ``limit`` (default: what the model reads) of them; the frame's end stays.

    What people wrote never becomes a special token. A text without any token is read as the padding token alone.
    """
    most = min(limit or model.config.max_positions, model.config.max_positions)
    tokenizer = framed(model.tokenizer)
    tokenizer.backend.encode_special_tokens = True
    if most > tokenizer.backend.num_special_tokens_to_add(False):
        tokenizer.backend.enable_truncation(most)
    found = [e.ids[:most] for e in tokenizer.backend.encode_batch_fast(list(texts))]
    return [ids or [tokenizer.pad_id] for ids in found]


def pooled(network: Transformer, rows: Sequence[Sequence[int]], pooling: str = "mean", dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, W) fp32, differentiable, not normalised: one vector for each row of ids. An encoder-decoder reads with its encoder."""
    length = -(-max(map(len, rows)) // ROUND) * ROUND
    ids_BT = torch.zeros(len(rows), length, dtype=torch.int64)
    real_BT = torch.zeros(len(rows), length, dtype=torch.bool)
    for b, row in enumerate(rows):
        ids_BT[b, : len(row)], real_BT[b, : len(row)] = torch.tensor(list(row)), True
    ids_BT, real_BT = ids_BT.to(network.device), real_BT.to(network.device)
    if network.config.kind == "encoder-decoder":
        states = network.encode(ids_BT, Mask(padding=real_BT), dtype=dtype).states
    else:
        states = network.hidden(ids_BT, Mask(padding=real_BT), dtype=dtype)
    states = states.float()
    if pooling == "first":
        return states[:, 0]
    if pooling == "last":
        return states[torch.arange(len(rows), device=states.device), real_BT.sum(dim=1) - 1]
    weights = real_BT[..., None].float()
    return (states * weights).sum(dim=1) / weights.sum(dim=1)
