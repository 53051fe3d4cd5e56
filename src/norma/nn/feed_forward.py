"""The position-wise feed-forward layer, plain or gated."""

from __future__ import annotations

from torch import Tensor, nn

from norma.nn.config import ModelConfig
from norma.nn.layers import Linear, activate, together


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
            inner = activate(self.activation, self.up(x))
        else:
            gate, up = together((self.gate, self.up), x)
            inner = activate(self.activation, gate) * up
        out: Tensor = self.down(inner)
        return out
