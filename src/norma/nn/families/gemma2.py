"""Gemma 2: a norm before and after every sublayer, windows in every other layer, scores kept small by a soft cap.

    embedding x sqrt(width) ─→ [norm ─→ attention ─→ norm ─→ + ─→ norm ─→ GeGLU ─→ norm ─→ +] x layers ─→ norm ─→ head ─→ soft cap

A norm's weight is stored less one, as in the layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig
from norma.nn.families import llama_layout as layout
from norma.nn.families.base import Family

_GELU: Mapping[str, str] = {"gelu_tanh": "gelu_pytorch_tanh"}  # the only name of it that every reader of the layout takes


def _structure(width: int) -> dict[str, Any]:
    return {"norm_placement": "both", "norm_offset": 1.0, "embedding_scale": width**0.5}


def gemma2(
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
    query_scalar: int | None = None,
) -> ModelConfig:
    """Gemma 2 (Gemma Team, 2408.00118, section 2).

    RMS norms before and after each sublayer; layers 0, 2, 4, ... see ``window`` tokens, the others everything; soft caps of 50 on
    attention scores and 30 on token scores; gated GELU in its tanh form; tied embeddings, scaled by sqrt(width) where they are read.
    Queries are scaled by 1 / sqrt(``query_scalar``), the head size unless given.
    """
    return layout.build(
        "gemma2",
        width,
        head_size,
        attention_heads,
        kv_heads,
        vocab_size=vocab_size,
        layers=layers,
        max_positions=max_positions,
        feed_forward_width=feed_forward_width or 4 * width,
        activation="gelu_tanh",
        windows=(window, 0),
        attention_scale=(query_scalar or head_size) ** -0.5,
        attention_softcap=50.0,
        logit_softcap=30.0,
        norm_eps=1e-6,
        **_structure(width),
    )


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    if values.get("use_bidirectional_attention"):
        raise NormaError("use_bidirectional_attention = True is not supported for gemma2", mend="Supported: False")
    layers = values["num_hidden_layers"]
    types = values.get("layer_types") or [layout.FULL if i % 2 else layout.SLIDING for i in range(layers)]
    return {
        **layout.common({**values, "hidden_act": values["hidden_activation"]}, _structure(values["hidden_size"]), kv_heads=4),
        "attention_output_bias": values["attention_bias"],
        "attention_scale": values["query_pre_attn_scalar"] ** -0.5,
        "attention_softcap": values.get("attn_logit_softcapping", 50.0),
        "logit_softcap": values.get("final_logit_softcapping", 30.0),
        "windows": layout.windows_of(types, values.get("sliding_window", 4096), layers),
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    free = ("windows", "attention_bias", "attention_output_bias", "attention_scale", "attention_softcap", "logit_softcap")
    written = layout.entries(config, "Gemma2", _structure(config.width), free=free)
    layout.one_output_bias(config, "Gemma2")
    layout.even_width(config, "Gemma2")
    scalar = round(config.scale**-2)
    if scalar < 1 or scalar**-0.5 != config.scale:
        raise NormaError(
            f"Gemma2 cannot hold attention_scale = {config.scale}", where=config.family, mend="It has 1 / sqrt(n) for a whole number n"
        )
    activation = _GELU.get(config.activation, written["hidden_act"])
    return {
        **written,
        "hidden_act": activation,
        "hidden_activation": activation,
        "head_dim": config.head_size,
        "query_pre_attn_scalar": scalar,
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.logit_softcap,
        **layout.layer_types(config, "Gemma2"),
    }


def _size(width: int, layers: int, heads: int, kv_heads: int, inner: int, head_size: int, scalar: int) -> dict[str, Any]:
    return {
        "vocab_size": 256000,
        "width": width,
        "layers": layers,
        "head_size": head_size,
        "kv_heads": kv_heads,
        "max_positions": 8192,
        "attention_heads": heads,
        "feed_forward_width": inner,
        "query_scalar": scalar,
    }


FAMILIES: tuple[Family, ...] = (
    Family(
        name="gemma2",
        model_type="gemma2",
        architectures=layout.architectures("Gemma2"),
        preset=gemma2,
        sizes={  # table 1, whose inner widths count gate and up together
            "2b": _size(2304, 26, 8, 4, 9216, 256, 256),
            "9b": _size(3584, 42, 16, 8, 14336, 256, 256),
            "27b": _size(4608, 46, 32, 16, 36864, 128, 144),
        },
        keys={**layout.KEYS, "attention_bias": "attention_bias"},
        rows=layout.rows,
        read=_read,
        write=_write,
        defaults={
            **layout.DEFAULTS,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            "head_dim": 256,
            "hidden_activation": "gelu_pytorch_tanh",
            "attention_bias": False,
            "query_pre_attn_scalar": 256,
        },
        ignored=layout.IGNORED,
        copies=layout.copies,
        pads=True,
    ),
)
