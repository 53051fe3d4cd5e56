"""Our tensor names beside a Hugging Face layout's, with small invertible transforms: one table a family gives both directions.

    Row("decoder.blocks.{i}.attention.query.weight", "model.layers.{i}.self_attn.q_proj.weight")
    Row(("...query.weight", "...key.weight", "...value.weight"), "...c_attn.weight", fused(dim=0, then=transposed))

``{i}`` stands for a layer of the stack that our name begins with; ``{e}`` (theirs only) for an expert: ours holds all of a layer's
experts in one tensor whose first axis counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from norma.nn.config import ModelConfig

Convert = Callable[[ModelConfig, list[Tensor]], list[Tensor]]


@dataclass(frozen=True)
class Transform:
    """Two inverse functions on lists of tensors: ``write`` makes theirs from ours, ``read`` ours from theirs."""

    write: Convert
    read: Convert

    def then(self, after: Transform) -> Transform:
        """Write: this one first; read: this one last."""
        return Transform(lambda c, ours: after.write(c, self.write(c, ours)), lambda c, theirs: self.read(c, after.read(c, theirs)))


@dataclass(frozen=True)
class Row:
    """Tensors of ours that make up tensors of theirs.

    Args:
        ours, theirs: a name, or several for a transform that joins or splits.
        transform: None: the tensors are the same.
        layers: the values of ``{i}``; None: all layers of the stack that ours begins with.
    """

    ours: str | tuple[str, ...]
    theirs: str | tuple[str, ...]
    transform: Transform | None = None
    layers: Iterable[int] | None = None

    def expand(self, config: ModelConfig) -> list[tuple[tuple[str, ...], tuple[str, ...], Transform | None]]:
        """The row for every layer, ``{e}`` written out."""
        ours = (self.ours,) if isinstance(self.ours, str) else self.ours
        theirs = (self.theirs,) if isinstance(self.theirs, str) else self.theirs
        if any("{e}" in name for name in theirs):
            assert config.experts is not None
            theirs = tuple(name.replace("{e}", str(e)) for name in theirs for e in range(config.experts.count))
        layers: Iterable[int] = (0,)
        if "{i}" in ours[0]:
            layers = range(depth(config, ours[0].partition(".")[0])) if self.layers is None else self.layers
        return [
            (tuple(n.replace("{i}", str(i)) for n in ours), tuple(n.replace("{i}", str(i)) for n in theirs), self.transform) for i in layers
        ]


def depth(config: ModelConfig, stack: str) -> int:
    """Blocks of the stack called ``encoder`` or ``decoder``."""
    if stack == "encoder" and config.kind == "encoder-decoder":
        return config.encoder_layers
    return config.layers


def _heads(config: ModelConfig) -> tuple[int, int, int]:
    return config.attention_heads, config.kv_heads, config.head_size


def _each(change: Callable[[Tensor], Tensor]) -> Convert:
    return lambda config, tensors: [change(t) for t in tensors]


transposed = Transform(_each(lambda t: t.t().contiguous()), _each(lambda t: t.t().contiguous()))
"""(out, in) ↔ (in, out): GPT-2's Conv1D."""

row_vector = Transform(_each(lambda t: t[None]), _each(lambda t: t[0]))
"""(V,) ↔ (1, V): Marian's and BART's final_logits_bias."""

stacked = Transform(lambda config, ours: list(ours[0].unbind(0)), lambda config, theirs: [torch.stack(theirs)])
"""One tensor with an axis of experts ↔ a tensor per expert."""


def concatenated(sizes: Callable[[ModelConfig], Sequence[int]]) -> Transform:
    """Several tensors ↔ one, joined along the first axis; ``sizes`` are the lengths of the parts."""
    return Transform(
        lambda config, ours: [torch.cat(ours)],
        lambda config, theirs: [part.contiguous() for part in torch.split(theirs[0], list(sizes(config)))],
    )


def _qkv_sizes(config: ModelConfig) -> tuple[int, int, int]:
    heads, groups, size = _heads(config)
    return heads * size, groups * size, groups * size


qkv = concatenated(_qkv_sizes)
"""Query, key and value ↔ one tensor, the three after each other (GPT-2, ModernBERT)."""

gate_up = concatenated(lambda config: (config.feed_forward_width, config.feed_forward_width))
"""Gate and up ↔ one tensor (ModernBERT)."""


def _interleave(config: ModelConfig, ours: list[Tensor]) -> list[Tensor]:
    heads, _, size = _heads(config)
    parts = [t.reshape(heads, size, *t.shape[1:]) for t in ours]
    return [torch.cat(parts, dim=1).reshape(3 * heads * size, *ours[0].shape[1:])]


def _separate(config: ModelConfig, theirs: list[Tensor]) -> list[Tensor]:
    heads, _, size = _heads(config)
    whole = theirs[0].reshape(heads, 3 * size, *theirs[0].shape[1:])
    return [part.reshape(heads * size, *part.shape[2:]).contiguous() for part in torch.split(whole, size, dim=1)]


qkv_by_head = Transform(_interleave, _separate)
"""Query, key and value ↔ one tensor, head after head (GPT-NeoX)."""
