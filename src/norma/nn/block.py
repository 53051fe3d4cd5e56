"""One Transformer block: attention, attention to an encoder's output where there is one, feed-forward; each with its norm and residual."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from norma.nn.attention import Attention, Rotary, Watch
from norma.nn.cache import Cache
from norma.nn.config import ModelConfig
from norma.nn.experts import ExpertFeedForward
from norma.nn.feed_forward import FeedForward
from norma.nn.layers import make_norm
from norma.nn.mask import Seen


class Block(nn.Module):
    """Block ``layer`` of the stack called ``stack``. A unit to shard, to checkpoint or to compile.

    Where the norm n stands around a sublayer f (``ModelConfig.norm_placement``):

        pre     x + f(n(x))          (Xiong et al., 2002.04745)
        post    n(x + f(x))          (Vaswani et al., 1706.03762, 3.1)
        output  x + n(f(x))          (OLMo 2, 2501.00656, 2.1)
        both    x + n'(f(n(x)))      (Gemma 2, 2408.00118)
    """

    def __init__(self, config: ModelConfig, layer: int, stack: str) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        both = config.norm_placement == "both"
        self.attention_norm = make_norm(config) if layer or config.first_attention_norm else None
        self.attention = Attention(config, layer, stack)
        self.attention_output_norm = make_norm(config) if both else None
        if stack == "decoder" and config.kind == "encoder-decoder":
            self.cross_norm: nn.Module | None = make_norm(config)
            self.cross: Attention | None = Attention(config, layer, "cross")
        else:
            self.cross_norm = self.cross = None
        self.feed_forward_norm = None if config.shared_norm else make_norm(config)
        self.feed_forward = ExpertFeedForward(config) if config.sparse(layer) else FeedForward(config)
        self.feed_forward_output_norm = make_norm(config) if both else None

    def forward(
        self,
        x_BTW: Tensor,
        seen: Seen,
        rotary: Rotary | None = None,
        cache: Cache | None = None,
        memory_BSW: Tensor | None = None,
        memory_seen: Seen | None = None,
        watch: Watch | None = None,
        real_BT: Tensor | None = None,
    ) -> Tensor:
        """(B, T, W) → (B, T, W). ``real`` (B, T) bool is True at real tokens: experts count only those."""

        def attention(x: Tensor) -> Tensor:
            out: Tensor = self.attention(x, seen, rotary=rotary, cache=cache, watch=watch)
            return out

        def feed_forward(x: Tensor) -> Tensor:
            out: Tensor = self.feed_forward(x, real_BT) if isinstance(self.feed_forward, ExpertFeedForward) else self.feed_forward(x)
            return out

        if self.config.parallel:
            normed = x_BTW if self.attention_norm is None else self.attention_norm(x_BTW)
            other = normed if self.feed_forward_norm is None else self.feed_forward_norm(x_BTW)
            return x_BTW + self._drop(attention(normed) + feed_forward(other))
        x = self._residual(x_BTW, attention, self.attention_norm, self.attention_output_norm)
        if self.cross is not None:
            assert memory_BSW is not None and memory_seen is not None, "a decoder of an encoder-decoder needs the encoder's output"
            cross, visible = self.cross, memory_seen
            x = self._residual(x, lambda y: cross(y, visible, memory_BSW=memory_BSW, cache=cache, watch=watch), self.cross_norm, None)
        return self._residual(x, feed_forward, self.feed_forward_norm, self.feed_forward_output_norm)

    def _residual(self, x: Tensor, sublayer: Callable[[Tensor], Tensor], norm: nn.Module | None, output_norm: nn.Module | None) -> Tensor:
        placement = self.config.norm_placement
        if placement == "post":
            assert norm is not None
            after: Tensor = norm(x + self._drop(sublayer(x)))
            return after
        out = sublayer(x if norm is None or placement == "output" else norm(x))
        last = norm if placement == "output" else output_norm
        return x + self._drop(out if last is None else last(out))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, training=True) if self.training and self.config.dropout else x
