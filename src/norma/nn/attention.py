"""Multi-head attention, to a sequence itself or to an encoder's output, with grouped queries.

Attention(Q, K, V) = softmax(Q K^T / sqrt(d_k)) V            (Vaswani et al., 1706.03762, eq. 1)

Shapes: B batch, T queries, S keys, H heads, G key/value heads, D features of a head, W width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache as memoise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from norma.nn import kernels
from norma.nn.cache import Cache
from norma.nn.config import ModelConfig
from norma.nn.layers import Linear, RMSNorm, together
from norma.nn.mask import Seen, additive
from norma.nn.positions import rotate

Rotary = tuple[Tensor, Tensor]

WRITTEN_OUT = 1024 * 1024  # scores of one head up to which a CPU writes the products out
ROLES = ("query", "key", "value")
HALVED = 128  # queries from which a causal sequence is computed in two halves


@dataclass
class Watch:
    """Asks for attention weights; after a forward pass ``weights[stack, layer]`` is (B, H, T, S) fp32.

    ``stack`` is "encoder", "decoder" or "cross" (the decoder's look at the encoder). ``layers`` None: all of them.
    """

    layers: frozenset[int] | None = None
    weights: dict[tuple[str, int], Tensor] = field(default_factory=dict)


def scores(q_BHTD: Tensor, k_BGSD: Tensor, seen: Seen, scale: float, softcap: float | None) -> Tensor:
    """(B, H, T, S): what the softmax is taken of. Queries of a group are stacked, so that keys are never copied."""
    B, H, T, D = q_BHTD.shape
    G, S = k_BGSD.shape[1], k_BGSD.shape[2]
    product = torch.matmul((q_BHTD * scale).reshape(B, G, H // G * T, D), k_BGSD.transpose(-1, -2)).view(B, H, T, S)
    if softcap is not None:
        product = softcap * torch.tanh(product / softcap)
    if seen.bias is not None:
        product = product + seen.bias
    elif seen.causal:
        product = product + additive(torch.ones(T, S, dtype=torch.bool, device=product.device).tril(S - T), product.dtype)
    return product


def weighted(weights_BHTS: Tensor, v_BGSD: Tensor) -> Tensor:
    """(B, H, T, D): sums of values by their weights."""
    B, H, T, S = weights_BHTS.shape
    G, D = v_BGSD.shape[1], v_BGSD.shape[3]
    return torch.matmul(weights_BHTS.reshape(B, G, H // G * T, S), v_BGSD).view(B, H, T, D)


def written_out(q: Tensor, k: Tensor, v: Tensor, seen: Seen, scale: float, softcap: float | None) -> Tensor:
    """softmax(scores) v as matrix products. Of a longer causal sequence the upper right quarter is never computed."""
    T, half = q.shape[2], q.shape[2] // 2
    if not seen.causal or k.shape[2] != T or T < HALVED:
        return weighted(scores(q, k, seen, scale, softcap).softmax(dim=-1), v)
    early = Seen(None if seen.bias is None else seen.bias[:, :, :half, :half], causal=True)
    late = Seen(None if seen.bias is None else seen.bias[:, :, half:], causal=True)
    first = weighted(scores(q[:, :, :half], k[:, :, :half], early, scale, softcap).softmax(dim=-1), v[:, :, :half])
    return torch.cat((first, weighted(scores(q[:, :, half:], k, late, scale, softcap).softmax(dim=-1), v)), dim=2)


@memoise
def _flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if torch.cuda.is_available() else flex_attention


def attend(
    q_BHTD: Tensor, k_BGSD: Tensor, v_BGSD: Tensor, seen: Seen, scale: float | None = None, softcap: float | None = None
) -> Tensor:
    """softmax(scale q k^T, capped, + what the mask adds) v, (B, H, T, D).

    On a CPU our own kernel is the fastest where it has been built (:mod:`norma.nn.kernels`). Without it the written-out products are
    two to three times as fast as PyTorch's fused kernel for sequences of a few hundred tokens (its backward runs at a tenth of a matrix
    product's speed); long ones would not fit, and GPUs have better kernels.
    """
    H, G, T, S = q_BHTD.shape[1], k_BGSD.shape[1], q_BHTD.shape[2], k_BGSD.shape[2]
    scale = q_BHTD.shape[-1] ** -0.5 if scale is None else scale
    if seen.blocks is not None:
        capped = None if softcap is None else (lambda score, b, h, t, s: softcap * torch.tanh(score / softcap))
        out: Tensor = _flex()(q_BHTD, k_BGSD, v_BGSD, score_mod=capped, block_mask=seen.blocks, scale=scale, enable_gqa=G != H)
        return out
    if seen.stretch is not None:
        stretch = seen.stretch
        if softcap is None and kernels.decodes(q_BHTD, k_BGSD):
            return kernels.decode(q_BHTD, k_BGSD, v_BGSD, stretch.begin, stretch.end, stretch.rows, scale)
        if stretch.rows is not None:
            k_BGSD, v_BGSD = k_BGSD[stretch.rows], v_BGSD[stretch.rows]
    if softcap is None and kernels.pays(T, S) and kernels.fits(q_BHTD, k_BGSD, seen.bias, seen.causal, scale):
        return kernels.attention(q_BHTD, k_BGSD, v_BGSD, seen.bias, seen.causal, scale)
    if softcap is not None or (q_BHTD.device.type == "cpu" and T * S <= WRITTEN_OUT):
        return written_out(q_BHTD, k_BGSD, v_BGSD, seen, scale, softcap)
    causal = seen.causal and seen.bias is None
    return F.scaled_dot_product_attention(
        q_BHTD, k_BGSD, v_BGSD, attn_mask=seen.bias, is_causal=causal, scale=scale, enable_gqa=G != H
    )


class Attention(nn.Module):
    """Multi-head attention (1706.03762, 3.2.2). ``name`` says where it stands: "encoder", "decoder" or "cross"."""

    def __init__(self, config: ModelConfig, layer: int, name: str) -> None:
        super().__init__()
        self.config, self.layer, self.name = config, layer, name
        heads, groups, size = config.attention_heads, config.kv_heads, config.head_size
        self.query = Linear(config.width, heads * size, bias=config.attention_bias)
        self.key = Linear(config.width, groups * size, bias=config.attention_bias)
        self.value = Linear(config.width, groups * size, bias=config.attention_bias)
        self.output = Linear(heads * size, config.width, bias=config.attention_output_bias)
        if config.qk_norm != "none":
            whole = config.qk_norm == "width"
            self.query_norm = RMSNorm(heads * size if whole else size, config.norm_eps, config.norm_offset)
            self.key_norm = RMSNorm(groups * size if whole else size, config.norm_eps, config.norm_offset)

    def forward(
        self,
        x_BTW: Tensor,
        seen: Seen,
        *,
        rotary: Rotary | None = None,
        cache: Cache | None = None,
        memory_BSW: Tensor | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """(B, T, W). With ``memory`` the keys and values come from there (cross-attention) and are kept in the cache."""
        B, T, _ = x_BTW.shape
        config = self.config
        if memory_BSW is None:
            q, k, v = map(self._split, together((self.query, self.key, self.value), x_BTW), ROLES)
        else:
            q = self._split(self.query(x_BTW), "query")
            if cache is not None and self.layer in cache.cross:
                k, v = cache.cross[self.layer]
            else:
                k, v = map(self._split, together((self.key, self.value), memory_BSW), ROLES[1:])
                if cache is not None:
                    cache.cross[self.layer] = (k, v)
        if rotary is not None:
            q, k = rotate(q, *rotary, config.rotary_interleaved), rotate(k, *rotary, config.rotary_interleaved)
        if cache is not None and memory_BSW is None:
            k, v = cache.append(self.layer, k, v)
        if watch is not None and (watch.layers is None or self.layer in watch.layers):
            looked = Seen(None if seen.bias is None else seen.bias.float(), seen.causal)
            weights = scores(q.float(), k.float(), looked, config.scale, config.attention_softcap).softmax(dim=-1)
            watch.weights[self.name, self.layer] = weights.detach()
        out = attend(q, k, v, seen, config.scale, config.attention_softcap)
        projected: Tensor = self.output(out.transpose(1, 2).reshape(B, T, -1))
        return projected

    def _split(self, x_BTF: Tensor, role: str) -> Tensor:
        """(B, heads, T, D), normed where the config says so: over the head, or over all heads together."""
        norm = None
        if self.config.qk_norm != "none" and role != "value":
            norm = self.query_norm if role == "query" else self.key_norm
        if norm is not None and self.config.qk_norm == "width":
            x_BTF = norm(x_BTF)
        B, T, _ = x_BTF.shape
        x: Tensor = x_BTF.view(B, T, -1, self.config.head_size).transpose(1, 2)
        return norm(x) if norm is not None and self.config.qk_norm == "head" else x
