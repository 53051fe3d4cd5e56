"""StarCoder2, in the layout Starcoder2: GPT-2's norms, biases and ungated feed-forward with rotary positions and grouped queries.

    embedding ─→ [LayerNorm ─→ attention (rotary, window) ─→ + ─→ LayerNorm ─→ feed-forward ─→ +] x layers ─→ LayerNorm ─→ tied head
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig
from norma.nn.families import llama_layout as layout
from norma.nn.families.base import Family, head_rows, parts
from norma.nn.names import Row

BIASES = ("attention_bias", "attention_output_bias", "feed_forward_bias")
STRUCTURE: Mapping[str, Any] = {"norm": "layer", "norm_bias": True, "gated": False}


def starcoder2(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 128,
    kv_heads: int | None = None,
    max_positions: int = 4096,
    attention_heads: int | None = None,
    window: int = 0,
    rope_theta: float = 100000.0,
) -> ModelConfig:
    """StarCoder2 (Lozhkov et al., 2402.19173, section 6.1): rotary positions, grouped queries; feed-forward 4 x width, biases everywhere.

    The published models look back 4,096 tokens (``window``), over 16,384 after training on long texts (section 6.3).
    """
    return layout.build(
        "starcoder2",
        width,
        head_size,
        attention_heads,
        kv_heads,
        vocab_size=vocab_size,
        layers=layers,
        max_positions=max_positions,
        feed_forward_width=4 * width,
        activation="gelu_tanh",
        windows=(window,),
        rope_theta=rope_theta,
        initialisation="normal",
        initializer_range=0.018042,
        **dict.fromkeys(BIASES, True),
        **STRUCTURE,
    )


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    biases = dict.fromkeys(BIASES, values["use_bias"])
    return {**layout.common(values, STRUCTURE, kv_heads=2), **biases, "windows": (values.get("sliding_window") or 0,)}


def _write(config: ModelConfig) -> dict[str, Any]:
    written = layout.entries(config, "Starcoder2", STRUCTURE, free=(*BIASES, "windows"))
    windows, biases = {config.window(i) for i in range(config.layers)}, {getattr(config, name) for name in BIASES}
    for name, values in (("windows", windows), (" / ".join(BIASES), biases)):
        if len(values) > 1:
            raise NormaError(f"Starcoder2 cannot hold {name} that differ: {sorted(values)}", where="starcoder2", mend="It has one for all")
    dropout = {"residual_dropout": config.dropout, "embedding_dropout": config.dropout}
    return {**written, **layout.head_dim(config), **dropout, "use_bias": config.attention_bias, "sliding_window": max(windows) or None}


def _rows(config: ModelConfig) -> list[Row]:
    begin, bias = "" if config.head == "none" else "model.", config.attention_bias
    block, theirs = "decoder.blocks.{i}", f"{begin}layers.{{i}}"
    return [
        Row("embedding.weight", f"{begin}embed_tokens.weight"),
        *parts(f"{block}.attention_norm", f"{theirs}.input_layernorm"),
        *(
            row
            for name in ("query", "key", "value", "output")
            for row in parts(f"{block}.attention.{name}", f"{theirs}.self_attn.{name[0]}_proj", bias=bias)
        ),
        *parts(f"{block}.feed_forward_norm", f"{theirs}.post_attention_layernorm"),
        *parts(f"{block}.feed_forward.up", f"{theirs}.mlp.c_fc", bias=bias),
        *parts(f"{block}.feed_forward.down", f"{theirs}.mlp.c_proj", bias=bias),
        *parts("decoder.norm", f"{begin}norm"),
        *head_rows(config),
    ]


def _size(width: int, layers: int, kv_heads: int, rope_theta: float) -> dict[str, Any]:
    return {
        "vocab_size": 49152, "width": width, "layers": layers, "kv_heads": kv_heads,
        "max_positions": 16384, "window": 4096, "rope_theta": rope_theta,
    }  # fmt: skip


FAMILIES: tuple[Family, ...] = (
    Family(
        name="starcoder2",
        model_type="starcoder2",
        architectures=layout.architectures("Starcoder2"),
        preset=starcoder2,
        sizes={  # 2402.19173, section 6.1; rotary bases: the published config.json
            "3b": _size(3072, 30, 2, 999999.4420358813),
            "7b": _size(4608, 32, 4, 1000000.0),
            "15b": _size(6144, 40, 4, 100000.0),
        },
        keys={**layout.KEYS, "norm_eps": "norm_epsilon"},
        rows=_rows,
        read=_read,
        write=_write,
        defaults={
            **layout.DEFAULTS,
            "max_position_embeddings": 4096,
            "norm_epsilon": 1e-5,
            "hidden_act": "gelu_pytorch_tanh",
            "initializer_range": 0.018042,
            "tie_word_embeddings": True,
            "use_bias": True,
        },
        ignored=layout.IGNORED,
        copies=layout.copies,
        pads=True,
    ),
)
