"""PaLM, in the layout Cohere.

    x ─→ norm ─┬─→ attention (many queries, one key and value; rotary) ─→ +
               └─→ SwiGLU ──────────────────────────────────────────────→ + ─→ + x ─→ next block; scores from the embedding / sqrt(width)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig
from norma.nn.families.base import Family, head_rows, head_size_of, must_hold, parts, read_activation, write_activation
from norma.nn.families.rope import read_rope, write_rope
from norma.nn.names import Row

STRUCTURE: Mapping[str, Any] = {"norm": "layer", "norm_bias": False, "parallel": True, "shared_norm": True, "rotary_interleaved": True}


def palm(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 2048,
    attention_heads: int | None = None,
) -> ModelConfig:
    """PaLM (Chowdhery et al., 2204.02311, section 2).

    SwiGLU feed-forward of inner width 4 x width; attention and feed-forward in parallel behind one norm; one key and value for all heads;
    rotary positions; embeddings shared between input and output; no biases in dense kernels or norms. Token scores are scaled by
    1 / sqrt(width), because embeddings start from N(0, 1) (section 5, weight initialisation). Context 2,048; no dropout in pretraining
    (section 5). The epsilon of the norm is not in the paper.
    """
    heads = attention_heads or width // head_size
    return ModelConfig(
        family="palm",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        attention_heads=heads,
        kv_heads=kv_heads or 1,
        head_size=head_size,
        feed_forward_width=4 * width,
        max_positions=max_positions,
        logit_scale=width**-0.5,
        initialisation="palm",
        **STRUCTURE,
    )


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    heads = values["num_attention_heads"]
    return {
        **STRUCTURE,
        **read_rope(values, 500000.0),
        "kv_heads": values.get("num_key_value_heads") or heads,
        "head_size": values.get("head_dim") or head_size_of(values["hidden_size"], heads),
        "activation": read_activation(values["hidden_act"]),
        "attention_output_bias": values["attention_bias"],
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    must_hold(config, "Cohere", STRUCTURE, free=("rope_theta", "rope_scaling", "attention_bias", "attention_output_bias", "logit_scale"))
    if config.attention_output_bias != config.attention_bias:
        raise NormaError("Cohere cannot hold attention_output_bias without attention_bias, or the other way round", where=config.family)
    if config.dropout:
        raise NormaError(f"Cohere cannot hold dropout = {config.dropout}", where=config.family, mend="It has none but in attention")
    # Only where it is needed: not every reader of the layout knows the key.
    uneven = {"head_dim": config.head_size} if config.attention_heads * config.head_size != config.width else {}
    return {
        "num_key_value_heads": config.kv_heads,
        "hidden_act": write_activation(config.activation),
        "attention_dropout": 0.0,
        **uneven,
        **write_rope(config),
    }


def _rows(config: ModelConfig) -> list[Row]:
    begin = "" if config.head == "none" else "model."
    block, theirs = "decoder.blocks.{i}", f"{begin}layers.{{i}}"
    biases = {"query": config.attention_bias, "key": config.attention_bias, "value": config.attention_bias}
    biases["output"] = config.attention_output_bias
    return [
        Row("embedding.weight", f"{begin}embed_tokens.weight"),
        Row(f"{block}.attention_norm.weight", f"{theirs}.input_layernorm.weight"),
        *(row for n, bias in biases.items() for row in parts(f"{block}.attention.{n}", f"{theirs}.self_attn.{n[0]}_proj", bias=bias)),
        *(Row(f"{block}.feed_forward.{n}.weight", f"{theirs}.mlp.{n}_proj.weight") for n in ("gate", "up", "down")),
        Row("decoder.norm.weight", f"{begin}norm.weight"),
        *head_rows(config),
    ]


def _copies(config: ModelConfig) -> dict[str, str]:
    return {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_embeddings else {}


def _size(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {"vocab_size": 256000, "width": width, "layers": layers, "attention_heads": heads, "head_size": 256, "max_positions": 2048}


FAMILIES: tuple[Family, ...] = (
    Family(
        name="palm",
        model_type="cohere",
        architectures={"lm": "CohereForCausalLM", "none": "CohereModel"},
        preset=palm,
        sizes={"8b": _size(4096, 32, 16), "62b": _size(8192, 64, 32), "540b": _size(18432, 118, 48)},  # table 1
        keys={
            "vocab_size": "vocab_size",
            "width": "hidden_size",
            "layers": "num_hidden_layers",
            "attention_heads": "num_attention_heads",
            "feed_forward_width": "intermediate_size",
            "max_positions": "max_position_embeddings",
            "norm_eps": "layer_norm_eps",
            "tie_embeddings": "tie_word_embeddings",
            "initializer_range": "initializer_range",
            "attention_bias": "attention_bias",
            "logit_scale": "logit_scale",
        },
        rows=_rows,
        read=_read,
        write=_write,
        fixed={"use_qk_norm": False},
        defaults={
            "vocab_size": 256000,
            "hidden_size": 8192,
            "intermediate_size": 22528,
            "logit_scale": 0.0625,
            "num_hidden_layers": 40,
            "num_attention_heads": 64,
            "hidden_act": "silu",
            "max_position_embeddings": 8192,
            "initializer_range": 0.02,
            "layer_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "use_qk_norm": False,
        },
        ignored=("*.rotary_emb.inv_freq",),
        copies=_copies,
        pads=True,
    ),
)
