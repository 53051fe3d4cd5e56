"""Families as functions that return a config. A new family is a function here and a table in ``names.py``."""

from __future__ import annotations

from collections.abc import Callable

from norma.base.errors import NormaError, nearest
from norma.nn.config import ModelConfig


def llama(
    *, vocab_size: int, width: int, layers: int, head_size: int = 64, kv_heads: int | None = None, max_positions: int = 512
) -> ModelConfig:
    """Llama (Touvron et al., 2302.13971): pre-norm RMS, rotary, SwiGLU, no biases; tied embeddings as its small versions have."""
    heads = width // head_size
    return ModelConfig(
        family="llama",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        feed_forward_width=round(width * 8 / 3 / 64) * 64,
        max_positions=max_positions,
    )


def qwen3(
    *, vocab_size: int, width: int, layers: int, head_size: int = 64, kv_heads: int | None = None, max_positions: int = 512
) -> ModelConfig:
    """Qwen3 (2505.09388): Llama with RMS-normed queries and keys."""
    from dataclasses import replace

    base = llama(vocab_size=vocab_size, width=width, layers=layers, head_size=head_size, kv_heads=kv_heads, max_positions=max_positions)
    return replace(base, family="qwen3", qk_norm=True, norm_eps=1e-6)


PRESETS: dict[str, Callable[..., ModelConfig]] = {"llama": llama, "qwen3": qwen3}


def preset(name: str, **sizes: int) -> ModelConfig:
    """The config of a family by name. Unknown names and sizes that do not fit are errors that say so."""
    if name not in PRESETS:
        raise NormaError(f"unknown model preset '{name}'", mend=nearest(name, PRESETS))
    if sizes["width"] % sizes.get("head_size", 64):
        raise NormaError(f"width {sizes['width']} is not a multiple of head_size {sizes.get('head_size', 64)}", mend="Choose a multiple")
    return PRESETS[name](**sizes)
