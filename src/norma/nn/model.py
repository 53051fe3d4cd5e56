"""The Transformer: embedding, blocks, final norm, head. Shapes: B batch, T tokens, W width, V vocabulary, S cache slots."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from norma.nn.attention import Cache, Mask, additive, rotary_table
from norma.nn.block import Block
from norma.nn.config import ModelConfig
from norma.nn.layers import Linear, RMSNorm


class Transformer(nn.Module):
    """A decoder-only Transformer described by ``config``. Built on the meta device it costs no memory."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.blocks = nn.ModuleList([Block(config, layer) for layer in range(config.layers)])
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = None if config.tie_embeddings else Linear(config.width, config.vocab_size, bias=False)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> Transformer:
        """Normal weights; projections back into the residual stream start at zero, so each block begins as the identity.

        (Zero-initialised projections: Zhang et al., Fixup, 1901.09321, section 3.)
        """
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.output.weight", "feed_forward.down.weight", ".bias")):
                parameter.zero_()
            elif parameter.dim() >= 2:
                parameter.normal_(0.0, self.config.initializer_range, generator=generator)
            else:
                parameter.fill_(1.0)
        return self

    def head_weight(self) -> Tensor:
        """(V, W): the rows that hidden states are compared with; the embedding itself when tied (Press and Wolf, 1608.05859)."""
        return self.embedding.weight if self.head is None else self.head.weight

    def hidden(
        self,
        ids_BT: Tensor,
        mask: Mask | None = None,
        positions_BT: Tensor | None = None,
        cache: Cache | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Final hidden states (B, T, W) in ``dtype``.

        Args:
            ids_BT: token ids, int64.
            mask: which keys are seen; causal when None. With a cache, the cache's ``visible`` slots decide instead.
            positions_BT: positions for rotary embedding; 0, 1, 2, ... when None.
            cache: keys and values read before; the new ones are appended.
            dtype: type of the activations; weights stay in fp32.
        """
        T = ids_BT.shape[1]
        start = 0 if cache is None else cache.length
        if positions_BT is None:
            positions_BT = torch.arange(start, start + T, device=ids_BT.device)[None]
        rotary = rotary_table(positions_BT, self.config.head_size, self.config.rope_theta, dtype)
        allowed = (mask or Mask()).allowed(T, ids_BT.device) if cache is None else self._seen(cache, T)
        bias = additive(allowed, dtype)
        x = F.embedding(ids_BT, self.embedding.weight).to(dtype)
        for block in self.blocks:
            x = block(x, rotary, bias, cache)
        if cache is not None:
            cache.length += T
        out: Tensor = self.norm(x)
        return out

    @staticmethod
    def _seen(cache: Cache, length: int) -> Tensor:
        """(B, 1, T, S): visible slots, causal among the new tokens."""
        end = cache.length + length
        slots = torch.arange(end, device=cache.visible.device)
        causal = slots[None, :] <= slots[cache.length :, None]
        own = slots[None, :] == slots[cache.length :, None]
        return (cache.visible[:, None, None, :end] & causal) | own

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., V) in fp32 of hidden states (..., W)."""
        return F.linear(hidden, self.head_weight().to(hidden.dtype)).float()

    def forward(self, ids_BT: Tensor, mask: Mask | None = None, positions_BT: Tensor | None = None) -> Tensor:
        """Logits (B, T, V), everything in fp32."""
        return self.logits(self.hidden(ids_BT, mask, positions_BT))
