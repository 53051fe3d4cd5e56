"""OLMo 2: norms on what a sublayer gives, not on what it takes; queries and keys are normed as a whole.

    embedding ─→ [attention ─→ norm ─→ + ─→ SwiGLU ─→ norm ─→ +] x layers ─→ norm ─→ head
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from norma.nn.config import ModelConfig
from norma.nn.families import llama_layout as layout
from norma.nn.families.base import Family

_STRUCTURE: Mapping[str, Any] = {"norm_placement": "output", "qk_norm": "width"}


def olmo2(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
) -> ModelConfig:
    """OLMo 2 (OLMo Team, 2501.00656, section 2.1): Llama with norms after the sublayers and RMS-normed queries and keys.

    Rotary base 500,000, no biases, untied embeddings; every weight begins as N(0, 0.02) (section 3.2). Grouped queries in the 32B only.
    """
    return layout.build(
        "olmo2",
        width,
        head_size,
        attention_heads,
        kv_heads,
        vocab_size=vocab_size,
        layers=layers,
        max_positions=max_positions,
        feed_forward_width=feed_forward_width or layout.two_thirds(width),
        tie_embeddings=False,
        rope_theta=500000.0,
        norm_eps=1e-6,
        initialisation="normal",
        **_STRUCTURE,
    )


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**layout.common(values, _STRUCTURE), "attention_output_bias": values["attention_bias"]}


def _write(config: ModelConfig) -> dict[str, Any]:
    written = layout.entries(config, "Olmo2", _STRUCTURE, free=("attention_bias", "attention_output_bias"))
    layout.one_output_bias(config, "Olmo2")
    return {**written, **layout.head_dim(config)}


def _size(width: int, layers: int, heads: int, kv_heads: int, inner: int) -> dict[str, Any]:
    return {
        "vocab_size": 100352,
        "width": width,
        "layers": layers,
        "head_size": 128,
        "kv_heads": kv_heads,
        "max_positions": 4096,
        "attention_heads": heads,
        "feed_forward_width": inner,
    }


FAMILIES: tuple[Family, ...] = (
    Family(
        name="olmo2",
        model_type="olmo2",
        architectures=layout.architectures("Olmo2"),
        preset=olmo2,
        sizes={  # 7B and 13B: 2501.00656, section 2.1; 1B and 32B: model cards
            "1b": _size(2048, 16, 16, 16, 8192),
            "7b": _size(4096, 32, 32, 32, 11008),
            "13b": _size(5120, 40, 40, 40, 13824),
            "32b": _size(5120, 64, 40, 8, 27648),
        },
        keys={**layout.KEYS, "attention_bias": "attention_bias"},
        rows=layout.rows,
        read=_read,
        write=_write,
        defaults={**layout.DEFAULTS, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "attention_bias": False},
        ignored=layout.IGNORED,
        copies=layout.copies,
        pads=True,
    ),
)
