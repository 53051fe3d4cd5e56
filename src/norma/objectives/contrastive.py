"""Contrastive learning of embeddings: a text is to be nearest to its partner, among all partners of the batch.

L_i = -log( exp(sim(a_i, b_i) / t) / sum_j exp(sim(a_i, b_j) / t) ),  sim the cosine                     (InfoNCE)

(van den Oord et al., 1807.03748, eq. 4; the other rows' partners as negatives: Karpukhin et al., 2004.04906, section 3.2; of sentences
with a temperature, and a text as its own partner under another dropout: Gao et al., 2104.08821, eq. 1.)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Contrast(NamedTuple):
    """Sums over the rows: the loss, and how many have their own partner nearest."""

    loss: Tensor
    nearest: Tensor


def info_nce(
    anchors_ND: Tensor,
    partners_MD: Tensor,
    *,
    temperature: float = 0.05,
    symmetric: bool = False,
    groups_M: Tensor | None = None,
) -> Contrast:
    """Sum over the N rows of L; divide by N.

    Args:
        anchors_ND: (N, D) embeddings, of any length.
        partners_MD: (M, D), M >= N: the first N belong to the anchors in order, more of them are hard negatives.
        temperature: t.
        symmetric: the mean of L both ways, partners looking for their anchors too (Radford et al., 2103.00020, figure 3).
        groups_M: (M,) int64: partners of one number are alike (the same label, the same document): those of other rows do not count as
            negatives of each other. None: all differ.
    """
    count = len(anchors_ND)
    similar_NM = F.normalize(anchors_ND, dim=-1) @ F.normalize(partners_MD, dim=-1).T / temperature
    own = torch.arange(count, device=similar_NM.device)
    if groups_M is not None:
        alike_NM = groups_M[:count, None] == groups_M[None, :]
        alike_NM[own, own] = False
        similar_NM = similar_NM.masked_fill(alike_NM, -torch.inf)
    loss = F.cross_entropy(similar_NM, own, reduction="sum")
    if symmetric:
        loss = (loss + F.cross_entropy(similar_NM[:, :count].T, own, reduction="sum")) / 2
    return Contrast(loss, (similar_NM.detach().argmax(dim=1) == own).sum())
