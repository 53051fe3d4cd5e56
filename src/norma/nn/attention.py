"""Multi-head self-attention with rotary positions, grouped queries, a mask description and a cache.

Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V            (Vaswani et al., 1706.03762, eq. 1)

Shapes: B batch, T queries, S keys, H heads, G key/value heads, D features of a head, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from norma.nn.config import ModelConfig
from norma.nn.layers import Linear, RMSNorm


@dataclass(frozen=True)
class Mask:
    """Which keys a query sees. All conditions that are given must hold.

    Args:
        causal: a query sees keys at its own and earlier positions only.
        documents: (B, T) int64, the number of the packed document each token belongs to; a query sees its own document.
        trunk: (B, T) bool, True where a key is seen from every document of its row: a prompt read once for several answers.
        padding: (B, T) bool, True where a token is real; padded keys are never seen.
    """

    causal: bool = True
    documents: Tensor | None = None
    trunk: Tensor | None = None
    padding: Tensor | None = None

    def allowed(self, length: int, device: torch.device) -> Tensor:
        """(B or 1, 1, T, T) bool, True where a query may look."""
        allowed = torch.ones(1, 1, length, length, dtype=torch.bool, device=device)
        if self.causal:
            allowed = allowed.tril()
        if self.documents is not None:
            same = self.documents[:, None, :, None] == self.documents[:, None, None, :]
            if self.trunk is not None:
                same = same | self.trunk[:, None, None, :]
            allowed = allowed & same
        if self.padding is not None:
            # A padded query sees itself: a row without any key would be NaN.
            allowed = (allowed & self.padding[:, None, None, :]) | torch.eye(length, dtype=torch.bool, device=device)
        return allowed


class Cache:
    """Keys and values of what has been read: a fixed buffer for every layer, filled from the left.

    ``visible`` (B, S) bool says which slots hold real tokens; prompts of unequal length are padded on the left.
    """

    def __init__(self, config: ModelConfig, batch: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (config.layers, batch, config.kv_heads, size, config.head_size)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.visible = torch.zeros(batch, size, dtype=torch.bool, device=device)
        self.length = 0

    def append(self, layer: int, k_BGTD: Tensor, v_BGTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values; return all that are held so far, (B, G, S, D) each."""
        end = self.length + k_BGTD.shape[2]
        self.keys[layer, :, :, self.length : end] = k_BGTD
        self.values[layer, :, :, self.length : end] = v_BGTD
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows of the batch (finished ones leave)."""
        self.keys, self.values, self.visible = self.keys[:, rows], self.values[:, rows], self.visible[rows]


def rotary_table(positions: Tensor, head_size: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary angles, each (B or 1, 1, T, D/2), computed in fp32 (RoFormer, 2104.09864, eq. 34)."""
    exponent = torch.arange(0, head_size, 2, device=positions.device, dtype=torch.float32) / head_size
    angles = positions[:, None, :, None].float() * theta**-exponent
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x_BHTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn feature pairs (i, i + D/2) by the angle of their position."""
    first, second = x_BHTD.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a query may look and a very negative number elsewhere, to be added to the scores."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -1e30)


def attend(q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D) + bias) v, (B, H, T, D). ``bias`` is (B or 1, 1, T, S), from :func:`additive`.

    On a CPU the written-out products are two to three times as fast as PyTorch's fused kernel for sequences of a few
    hundred tokens (its backward runs at a tenth of a matrix product's speed); long ones would not fit, and GPUs have better kernels.
    """
    H, G = q_BHTD.shape[1], k_BGSD.shape[1]
    if q_BHTD.device.type != "cpu" or q_BHTD.shape[2] * k_BGSD.shape[2] > WRITTEN_OUT:
        return F.scaled_dot_product_attention(q_BHTD, k_BGSD, v_BGSD, attn_mask=bias, enable_gqa=G != H)
    if G != H:
        k_BGSD, v_BGSD = k_BGSD.repeat_interleave(H // G, dim=1), v_BGSD.repeat_interleave(H // G, dim=1)
    scores = torch.matmul(q_BHTD * q_BHTD.shape[-1] ** -0.5, k_BGSD.transpose(-1, -2)) + bias
    return torch.matmul(scores.softmax(dim=-1), v_BGSD)


WRITTEN_OUT = 1024 * 1024  # scores of one head up to which the products are written out


class Attention(nn.Module):
    """Multi-head self-attention (1706.03762, 3.2.2)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        heads, groups, size = config.attention_heads, config.kv_heads, config.head_size
        self.query = Linear(config.width, heads * size, bias=config.attention_bias)
        self.key = Linear(config.width, groups * size, bias=config.attention_bias)
        self.value = Linear(config.width, groups * size, bias=config.attention_bias)
        self.output = Linear(heads * size, config.width, bias=False)
        if config.qk_norm:
            self.query_norm, self.key_norm = RMSNorm(size, config.norm_eps), RMSNorm(size, config.norm_eps)

    def forward(self, x_BTW: Tensor, rotary: tuple[Tensor, Tensor], bias: Tensor, cache: Cache | None = None) -> Tensor:
        B, T, _ = x_BTW.shape
        D = self.config.head_size
        q = self.query(x_BTW).view(B, T, -1, D).transpose(1, 2)
        k = self.key(x_BTW).view(B, T, -1, D).transpose(1, 2)
        v = self.value(x_BTW).view(B, T, -1, D).transpose(1, 2)
        if self.config.qk_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        q, k = rotate(q, *rotary), rotate(k, *rotary)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)
        out = attend(q, k, v, bias)
        projected: Tensor = self.output(out.transpose(1, 2).reshape(B, T, -1))
        return projected
