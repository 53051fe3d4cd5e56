"""Llama, Mistral, Qwen2 and Qwen3: pre-norm decoders with RMS norms, rotary positions and gated feed-forward layers.

    embedding ─→ [norm ─→ attention ─→ + ─→ norm ─→ SwiGLU ─→ +] x layers ─→ norm ─→ head

They differ in biases (Qwen2: query, key, value), normed queries and keys (Qwen3) and windows (Mistral: every layer).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig, RotaryScaling
from norma.nn.families import llama_layout as layout
from norma.nn.families.base import Family

_QWEN2: Mapping[str, Any] = {"attention_bias": True}
_QWEN3: Mapping[str, Any] = {"qk_norm": "head"}


def llama(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
    tie_embeddings: bool = True,
    norm_eps: float = 1e-5,
    rope_theta: float = 10000.0,
    rope_scaling: RotaryScaling | None = None,
) -> ModelConfig:
    """Llama (Touvron et al., 2302.13971, section 2.2): pre-norm RMS, SwiGLU of inner width 2/3 x 4 x width, rotary, no biases.

    Grouped queries from Llama 2 on (2307.09288, 2.2); base 500,000 and stretched wavelengths in Llama 3 (2407.21783, 3.2). Tied
    embeddings as its small versions have. No paper of the family says how weights begin.
    """
    return layout.build(
        "llama",
        width,
        head_size,
        attention_heads,
        kv_heads,
        vocab_size=vocab_size,
        layers=layers,
        max_positions=max_positions,
        feed_forward_width=feed_forward_width or layout.two_thirds(width),
        tie_embeddings=tie_embeddings,
        norm_eps=norm_eps,
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
    )


def mistral(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
    window: int = 4096,
    rope_theta: float = 10000.0,
) -> ModelConfig:
    """Mistral 7B (Jiang et al., 2310.06825, section 2): Llama with a window of 4,096 tokens in every layer (0: none). Untied embeddings."""
    return layout.build(
        "mistral",
        width,
        head_size,
        attention_heads,
        kv_heads,
        vocab_size=vocab_size,
        layers=layers,
        max_positions=max_positions,
        feed_forward_width=feed_forward_width or layout.two_thirds(width),
        tie_embeddings=False,
        windows=(window,),
        rope_theta=rope_theta,
    )


def qwen2(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
    tie_embeddings: bool = True,
    rope_theta: float = 10000.0,
) -> ModelConfig:
    """Qwen2 (Yang et al., 2407.10671, section 2.2.1): Llama with biases on query, key and value; its small versions tie embeddings.

    The base of the rotary wavelengths is 10,000, and 1,000,000 after training on long texts (section 3.2), as the published sizes have it.
    """
    return layout.build(
        "qwen2",
        width,
        head_size,
        attention_heads,
        kv_heads,
        vocab_size=vocab_size,
        layers=layers,
        max_positions=max_positions,
        feed_forward_width=feed_forward_width or layout.two_thirds(width),
        tie_embeddings=tie_embeddings,
        norm_eps=1e-6,
        rope_theta=rope_theta,
        **_QWEN2,
    )


def qwen3(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
    tie_embeddings: bool = True,
    rope_theta: float = 10000.0,
) -> ModelConfig:
    """Qwen3 (Yang et al., 2505.09388, section 2): Qwen2 without its biases, with RMS-normed queries and keys, head by head.

    The base of the rotary wavelengths as in :func:`qwen2` (section 3.2).
    """
    return layout.build(
        "qwen3",
        width,
        head_size,
        attention_heads,
        kv_heads,
        vocab_size=vocab_size,
        layers=layers,
        max_positions=max_positions,
        feed_forward_width=feed_forward_width or layout.two_thirds(width),
        tie_embeddings=tie_embeddings,
        norm_eps=1e-6,
        rope_theta=rope_theta,
        **_QWEN3,
    )


# ── config.json ──
def _read_llama(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**layout.common(values, {}), "attention_output_bias": values["attention_bias"]}


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    written = layout.entries(config, "Llama", {}, free=("attention_bias", "attention_output_bias", "feed_forward_bias"))
    layout.one_output_bias(config, "Llama")
    layout.even_width(config, "Llama")
    return {**written, "head_dim": config.head_size}


def _read_mistral(values: Mapping[str, Any]) -> dict[str, Any]:
    if values.get("layer_types") is not None:
        raise NormaError("layer_types is not supported for mistral", mend="Its layers are alike: sliding_window is for all of them")
    return {**layout.common(values, {}, kv_heads=8), "windows": (values.get("sliding_window", 4096) or 0,)}


def _write_mistral(config: ModelConfig) -> dict[str, Any]:
    windows = {config.window(i) for i in range(config.layers)}
    if len(windows) > 1:
        raise NormaError(f"Mistral cannot hold windows = {config.windows}", where="mistral", mend="It has one window for all layers")
    written = layout.entries(config, "Mistral", {}, free=("windows",))
    return {**written, "head_dim": config.head_size, "sliding_window": max(windows) or None}


def _read_qwen2(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**layout.common(values, _QWEN2, kv_heads=32), "windows": layout.late_windows(values)}


def _write_qwen2(config: ModelConfig) -> dict[str, Any]:
    written = layout.entries(config, "Qwen2", _QWEN2, free=("windows",))
    return {**written, **layout.head_dim(config), **layout.late_layer_types(config, "Qwen2")}


def _read_qwen3(values: Mapping[str, Any]) -> dict[str, Any]:
    fields = layout.common(values, _QWEN3, kv_heads=32)
    return {**fields, "attention_output_bias": values["attention_bias"], "windows": layout.late_windows(values)}


def _write_qwen3(config: ModelConfig) -> dict[str, Any]:
    written = layout.entries(config, "Qwen3", _QWEN3, free=("windows", "attention_bias", "attention_output_bias"))
    layout.one_output_bias(config, "Qwen3")
    return {**written, "head_dim": config.head_size, **layout.late_layer_types(config, "Qwen3")}


# ── published sizes ──
def _size(
    vocab_size: int, width: int, layers: int, heads: int, kv_heads: int, inner: int, positions: int, head_size: int = 128, **more: Any
) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "width": width,
        "layers": layers,
        "head_size": head_size,
        "kv_heads": kv_heads,
        "max_positions": positions,
        "attention_heads": heads,
        "feed_forward_width": inner,
        **more,
    }


_FIRST: Mapping[str, Any] = {"tie_embeddings": False, "norm_eps": 1e-6}
_UNTIED: Mapping[str, Any] = {"tie_embeddings": False}
_THIRD: Mapping[str, Any] = {"tie_embeddings": False, "rope_theta": 500000.0}
_LONG: Mapping[str, Any] = {"rope_theta": 500000.0, "rope_scaling": RotaryScaling("llama3", 8.0)}
_SMALL: Mapping[str, Any] = {"rope_theta": 500000.0, "rope_scaling": RotaryScaling("llama3", 32.0)}
_QWEN: Mapping[str, Any] = {"rope_theta": 1000000.0}

LLAMA_SIZES: Mapping[str, Mapping[str, Any]] = {  # 2302.13971, table 2; 2307.09288, table 1; 2407.21783, table 3; 3.2: model cards
    "7b": _size(32000, 4096, 32, 32, 32, 11008, 2048, **_FIRST),
    "13b": _size(32000, 5120, 40, 40, 40, 13824, 2048, **_FIRST),
    "33b": _size(32000, 6656, 60, 52, 52, 17920, 2048, **_FIRST),
    "65b": _size(32000, 8192, 80, 64, 64, 22016, 2048, **_UNTIED),
    "2-7b": _size(32000, 4096, 32, 32, 32, 11008, 4096, **_UNTIED),
    "2-13b": _size(32000, 5120, 40, 40, 40, 13824, 4096, **_UNTIED),
    "2-70b": _size(32000, 8192, 80, 64, 8, 28672, 4096, **_UNTIED),
    "3-8b": _size(128256, 4096, 32, 32, 8, 14336, 8192, **_THIRD),
    "3-70b": _size(128256, 8192, 80, 64, 8, 28672, 8192, **_THIRD),
    "3.1-8b": _size(128256, 4096, 32, 32, 8, 14336, 131072, **_UNTIED, **_LONG),
    "3.1-70b": _size(128256, 8192, 80, 64, 8, 28672, 131072, **_UNTIED, **_LONG),
    "3.1-405b": _size(128256, 16384, 126, 128, 8, 53248, 131072, **_UNTIED, **_LONG),
    "3.2-1b": _size(128256, 2048, 16, 32, 8, 8192, 131072, 64, **_SMALL),
    "3.2-3b": _size(128256, 3072, 28, 24, 8, 8192, 131072, **_SMALL),
}

MISTRAL_SIZES: Mapping[str, Mapping[str, Any]] = {  # 2310.06825, table 1; v0.3: model card
    "7b": _size(32000, 4096, 32, 32, 8, 14336, 32768),
    "7b-v0.3": _size(32768, 4096, 32, 32, 8, 14336, 32768, window=0, rope_theta=1000000.0),
}

QWEN2_SIZES: Mapping[str, Mapping[str, Any]] = {  # 2407.10671, table 1
    "0.5b": _size(151936, 896, 24, 14, 2, 4864, 131072, 64, **_QWEN),
    "1.5b": _size(151936, 1536, 28, 12, 2, 8960, 131072, **_QWEN),
    "7b": _size(152064, 3584, 28, 28, 4, 18944, 131072, **_UNTIED, **_QWEN),
    "72b": _size(152064, 8192, 80, 64, 8, 29568, 131072, **_UNTIED, **_QWEN),
}

QWEN3_SIZES: Mapping[str, Mapping[str, Any]] = {  # 2505.09388, table 1
    "0.6b": _size(151936, 1024, 28, 16, 8, 3072, 40960, **_QWEN),
    "1.7b": _size(151936, 2048, 28, 16, 8, 6144, 40960, **_QWEN),
    "4b": _size(151936, 2560, 36, 32, 8, 9728, 40960, **_QWEN),
    "8b": _size(151936, 4096, 36, 32, 8, 12288, 40960, **_UNTIED, **_QWEN),
    "14b": _size(151936, 5120, 40, 40, 8, 17408, 40960, **_UNTIED, **_QWEN),
    "32b": _size(151936, 5120, 64, 64, 8, 25600, 40960, **_UNTIED, **_QWEN),
}

_BIASED: Mapping[str, str] = {**layout.KEYS, "attention_bias": "attention_bias"}
_WINDOWS: Mapping[str, Any] = {"use_sliding_window": False, "max_window_layers": 28}

FAMILIES: tuple[Family, ...] = (
    Family(
        name="llama",
        model_type="llama",
        architectures=layout.architectures("Llama"),
        preset=llama,
        sizes=LLAMA_SIZES,
        keys={**_BIASED, "feed_forward_bias": "mlp_bias"},
        rows=layout.rows,
        read=_read_llama,
        write=_write_llama,
        defaults={**layout.DEFAULTS, "max_position_embeddings": 2048, "attention_bias": False, "mlp_bias": False},
        ignored=layout.IGNORED,
        copies=layout.copies,
        pads=True,
    ),
    Family(
        name="mistral",
        model_type="mistral",
        architectures=layout.architectures("Mistral"),
        preset=mistral,
        sizes=MISTRAL_SIZES,
        keys=layout.KEYS,
        rows=layout.rows,
        read=_read_mistral,
        write=_write_mistral,
        defaults={**layout.DEFAULTS, "max_position_embeddings": 131072},
        ignored=layout.IGNORED,
        copies=layout.copies,
        pads=True,
    ),
    Family(
        name="qwen2",
        model_type="qwen2",
        architectures=layout.architectures("Qwen2"),
        preset=qwen2,
        sizes=QWEN2_SIZES,
        keys=layout.KEYS,
        rows=layout.rows,
        read=_read_qwen2,
        write=_write_qwen2,
        defaults={**layout.DEFAULTS, **_WINDOWS},
        ignored=layout.IGNORED,
        copies=layout.copies,
        pads=True,
    ),
    Family(
        name="qwen3",
        model_type="qwen3",
        architectures=layout.architectures("Qwen3"),
        preset=qwen3,
        sizes=QWEN3_SIZES,
        keys=_BIASED,
        rows=layout.rows,
        read=_read_qwen3,
        write=_write_qwen3,
        defaults={**layout.DEFAULTS, **_WINDOWS, "head_dim": 128, "attention_bias": False},
        ignored=layout.IGNORED,
        copies=layout.copies,
        pads=True,
    ),
)
