"""A stack of blocks with its positions: an encoder or a decoder. Shapes: B batch, T tokens, W width, H heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from norma.nn.attention import Rotary, Watch
from norma.nn.block import Block
from norma.nn.cache import Cache
from norma.nn.config import ModelConfig
from norma.nn.layers import make_norm
from norma.nn.mask import Mask, Seen, across
from norma.nn.positions import relative_bucket, rotary_table, sinusoids


@dataclass(frozen=True)
class Memory:
    """What an encoder has read, for a decoder to look at.

    Attributes:
        states: (B, S, W) the encoder's output.
        padding: (B, S) bool, True at real tokens; None: all are real.
        documents: (B, S) int64, the packed document of each token; the decoder's mask must number its documents alike.
    """

    states: Tensor
    padding: Tensor | None = None
    documents: Tensor | None = None


class Stack(nn.Module):
    """Embedded tokens in, hidden states out. ``name`` is "encoder" or "decoder"."""

    def __init__(self, config: ModelConfig, name: str) -> None:
        super().__init__()
        self.config, self.name = config, name
        self.causal = name == "decoder"
        layers = config.encoder_layers if name == "encoder" and config.kind == "encoder-decoder" else config.layers
        rows = config.max_positions + config.position_offset
        self.position_embedding = nn.Embedding(rows, config.width) if config.positions == "learned" else None
        self.segment_embedding = nn.Embedding(config.segments, config.width) if config.segments else None
        self.embedding_norm = make_norm(config) if config.embedding_norm else None
        self.relative_bias = nn.Embedding(config.relative_buckets, config.attention_heads) if config.positions == "relative" else None
        self.blocks = nn.ModuleList([Block(config, layer, name) for layer in range(layers)])
        self.norm = None if config.norm_placement == "post" else make_norm(config)

    def forward(
        self,
        x_BTW: Tensor,
        mask: Mask,
        positions_BT: Tensor,
        *,
        segments_BT: Tensor | None = None,
        cache: Cache | None = None,
        memory: Memory | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Hidden states (B, T, W) in the type of ``x``."""
        T, dtype = x_BTW.shape[1], x_BTW.dtype
        x = self._place(x_BTW, positions_BT, segments_BT)
        if cache is not None:
            cache.note(positions_BT)
        seen = {window: self._seen(window, mask, positions_BT, cache, dtype) for window in self._windows()}
        rotary = {window: self._rotary(window, positions_BT, dtype) for window in seen}
        if memory is None:
            memory_seen = None
        elif cache is not None and cache.cross_rows is not None:
            memory_seen = cache.lower_memory(dtype)
        else:
            memory_seen = across(mask.documents, memory.padding, memory.documents, dtype)
        states = None if memory is None else memory.states
        for i, block in enumerate(self.blocks):
            window = self.config.window(i)
            x = block(x, seen[window], rotary[window], cache, states, memory_seen, watch, mask.real)
        if cache is not None:
            cache.length += T
        return x if self.norm is None else self.norm(x)

    def _windows(self) -> set[int]:
        return {self.config.window(i) for i in range(len(self.blocks))}

    def _place(self, x: Tensor, positions_BT: Tensor, segments_BT: Tensor | None) -> Tensor:
        """Token embeddings with position and segment added, normed and dropped out as the config says."""
        config = self.config
        if self.position_embedding is not None:
            x = x + F.embedding(positions_BT + config.position_offset, self.position_embedding.weight).to(x.dtype)
        elif config.positions == "sinusoidal":
            x = x + sinusoids(positions_BT, config.width).to(x.dtype)
        if self.segment_embedding is not None:
            weight = self.segment_embedding.weight
            x = x + (weight[0] if segments_BT is None else F.embedding(segments_BT, weight)).to(x.dtype)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        return F.dropout(x, config.dropout, training=True) if self.training and config.dropout else x

    def _seen(self, window: int, mask: Mask, positions_BT: Tensor, cache: Cache | None, dtype: torch.dtype) -> Seen:
        T = positions_BT.shape[1]
        if cache is None:
            seen = mask.lower(positions_BT, causal=self.causal, window=window, dtype=dtype, blocks=self.relative_bias is None)
        else:
            seen = cache.lower(T, window, dtype)
        if self.relative_bias is None:
            return seen
        keys = positions_BT if cache is None else cache.seen_positions(T)
        return seen.plus(self._relative(positions_BT, keys).to(dtype), T)

    def _relative(self, queries_BT: Tensor, keys_BS: Tensor) -> Tensor:
        """(B, H, T, S): the learned bias of each distance (1910.10683, 2.1), shared by all blocks."""
        assert self.relative_bias is not None
        distance = keys_BS[:, None, :] - queries_BT[:, :, None]
        config = self.config
        bucket = relative_bucket(
            distance, bidirectional=not self.causal, buckets=config.relative_buckets, farthest=config.relative_distance
        )
        # Keys side by side: every layer reads it, and strided reads cost 4% of t5's step.
        return F.embedding(bucket, self.relative_bias.weight).permute(0, 3, 1, 2).contiguous()

    def _rotary(self, window: int, positions_BT: Tensor, dtype: torch.dtype) -> Rotary | None:
        if self.config.positions != "rotary":
            return None
        local = window and self.config.rope_theta_local is not None
        theta = self.config.rope_theta_local if local else self.config.rope_theta
        assert theta is not None
        return rotary_table(self.config, positions_BT, theta, dtype)
