"""The position-wise feed-forward layer, plain or gated."""

from __future__ import annotations

from torch import Tensor, nn

from norma.nn.config import ModelConfig
from norma.nn.layers import Linear, activated, gated


class FeedForward(nn.Module):
    """act(x W_up) W_down (1706.03762, eq. 2), or gated: (act(x W_gate) * x W_up) W_down (Shazeer, 2002.05202, eq. 6)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        bias, inner = config.feed_forward_bias, config.feed_forward_width
        self.activation = config.activation
        self.gate = Linear(config.width, inner, bias=bias) if config.gated else None
        self.up = Linear(config.width, inner, bias=bias)
        self.down = Linear(inner, config.width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            inner = activated(self.up, self.activation, x)
        else:
            inner = gated(self.gate, self.up, self.activation, x)
        out: Tensor = self.down(inner)
        return out
