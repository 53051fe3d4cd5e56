"""One Transformer block: attention and feed-forward, each behind a norm and a residual (pre-norm, Xiong et al., 2002.04745)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from norma.nn.attention import Attention, Cache
from norma.nn.config import ModelConfig
from norma.nn.layers import Linear, RMSNorm


class FeedForward(nn.Module):
    """SwiGLU: (silu(x W_gate) * x W_up) W_down (Shazeer, 2002.05202, eq. 6)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.width, config.feed_forward_width, bias=False)
        self.up = Linear(config.width, config.feed_forward_width, bias=False)
        self.down = Linear(config.feed_forward_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return out


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = Attention(config, layer)
        self.feed_forward_norm = RMSNorm(config.width, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], bias: Tensor, cache: Cache | None = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rotary, bias, cache)
        x = x + self.feed_forward(self.feed_forward_norm(x))
        return x
