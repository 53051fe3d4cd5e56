"""The position-wise feed-forward layer, plain or gated."""

from __future__ import annotations

from torch import Tensor, nn

from norma.nn import kernels
from norma.nn.config import ModelConfig
from norma.nn.kernels.activated import activated_linear
from norma.nn.kernels.linear import learns
from norma.nn.layers import Linear, activated, gated, joined, plain, product


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
        if plain(self.down) and learns(x, self.down.weight) and kernels.activates(x, self.down.in_features):
            wide = self._wide(x)
            if wide is not None:
                return activated_linear(*wide, self.activation, self.gate is not None, self.down.weight, self.down.bias)
        if self.gate is None:
            inner = activated(self.up, self.activation, x)
        else:
            inner = gated(self.gate, self.up, self.activation, x)
        out: Tensor = self.down(inner)
        return out

    def _wide(self, x: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """What the activation reads, and the bias that it adds before; None where the layers are more than products."""
        if self.gate is None:
            return (product(x, self.up.weight), self.up.bias) if plain(self.up) else None
        joint = joined((self.gate, self.up), x)
        return None if joint is None else (joint, None)
