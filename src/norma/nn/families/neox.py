"""GPT-NeoX-20B and Pythia, in the layout GPTNeoX.

    x ─┬─→ norm ─→ attention (rotary on a quarter of each head) ─→ +
       ├─→ norm ─→ feed-forward ──────────────────────────────────→ +
       └──────────────────────────────────────────────────────────→ + ─→ next block; untied head at the end

The layout keeps query, key and value in one tensor, head after head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig
from norma.nn.families.base import Family, head_rows, head_size_of, must_hold, must_split_evenly, parts, read_activation, write_activation
from norma.nn.families.rope import read_rope, rope_entries, write_rope
from norma.nn.names import Row, qkv_by_head

STRUCTURE: Mapping[str, Any] = {"norm": "layer", "norm_bias": True, "gated": False, "feed_forward_bias": True, "classifier_bias": False}


def neox(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 2048,
    attention_heads: int | None = None,
    activation: Literal["gelu", "gelu_tanh"] = "gelu",
    parallel: bool = True,
) -> ModelConfig:
    """GPT-NeoX-20B (Black et al., 2204.06745) and Pythia (Biderman et al., 2304.01373, section 2.1), which has the same architecture.

    Rotary positions on the first quarter of each head (2204.06745, 2.1.1); attention and feed-forward in parallel (2.1.2), each with a
    norm of its own: one shared norm was meant, and two were trained; all layers dense (2.1.4); feed-forward 4 x width and biases as
    GPT-3. Initialisation 2 / (layers sqrt(width)) before residuals, else sqrt(2 / (5 width)) (2.1.3). Untied embeddings.
    ``kv_heads`` other than None cannot be written. The 20B checkpoint has GELU in its tanh form, Pythia the exact one.
    """
    heads = attention_heads or width // head_size
    return ModelConfig(
        family="gpt-neox",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        feed_forward_width=4 * width,
        max_positions=max_positions,
        parallel=parallel,
        rotary_size=max(2, head_size // 8 * 2),  # pairs
        attention_bias=True,
        attention_output_bias=True,
        activation=activation,
        tie_embeddings=False,
        initialisation="neox",
        **STRUCTURE,
    )


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    head_size = head_size_of(values["hidden_size"], values["num_attention_heads"])
    part = rope_entries(values).get("partial_rotary_factor", values["rotary_pct"])
    return {
        **STRUCTURE,
        **read_rope(values, 10000.0, "rotary_emb_base"),
        "rotary_size": int(head_size * part),
        "kv_heads": values["num_attention_heads"],
        "head_size": head_size,
        "activation": read_activation(values["hidden_act"]),
        "attention_output_bias": values["attention_bias"],
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    held = ("parallel", "rope_theta", "rope_scaling", "rotary_size", "attention_bias", "attention_output_bias")
    must_hold(config, "GPTNeoX", STRUCTURE, free=held)
    must_split_evenly(config, "GPTNeoX")
    if config.attention_output_bias != config.attention_bias:
        raise NormaError("GPTNeoX cannot hold attention_output_bias without attention_bias, or the other way round", where=config.family)
    part = config.rotary / config.head_size
    if int(config.head_size * part) != config.rotary:  # the reader rounds down
        part = math.nextafter(part, 1.0)
    return {
        "hidden_act": write_activation(config.activation),
        "rotary_pct": part,
        "hidden_dropout": config.dropout,
        "attention_dropout": 0.0,
        **write_rope(config, "rotary_emb_base", partial_rotary_factor=part),
    }


def _rows(config: ModelConfig) -> list[Row]:
    begin = "" if config.head == "none" else "gpt_neox."
    block, theirs = "decoder.blocks.{i}", f"{begin}layers.{{i}}"
    attention = [f"{block}.attention.{part}" for part in ("query", "key", "value")]
    joined = [Row(tuple(f"{n}.weight" for n in attention), f"{theirs}.attention.query_key_value.weight", qkv_by_head)]
    if config.attention_bias:
        joined.append(Row(tuple(f"{n}.bias" for n in attention), f"{theirs}.attention.query_key_value.bias", qkv_by_head))
    return [
        Row("embedding.weight", f"{begin}embed_in.weight"),
        *parts(f"{block}.attention_norm", f"{theirs}.input_layernorm"),
        *joined,
        *parts(f"{block}.attention.output", f"{theirs}.attention.dense", bias=config.attention_output_bias),
        *parts(f"{block}.feed_forward_norm", f"{theirs}.post_attention_layernorm"),
        *parts(f"{block}.feed_forward.up", f"{theirs}.mlp.dense_h_to_4h"),
        *parts(f"{block}.feed_forward.down", f"{theirs}.mlp.dense_4h_to_h"),
        *parts("decoder.norm", f"{begin}final_layer_norm"),
        *head_rows(config, "embed_out.weight"),
    ]


def _copies(config: ModelConfig) -> dict[str, str]:
    """transformers 5 calls the head ``lm_head`` in memory; files say ``embed_out``."""
    if config.tie_embeddings:
        return dict.fromkeys(("embed_out.weight", "lm_head.weight"), "gpt_neox.embed_in.weight")
    return {"lm_head.weight": "embed_out.weight"}


def _size(width: int, layers: int, heads: int, vocab_size: int = 50304) -> dict[str, Any]:
    return {
        "vocab_size": vocab_size,
        "width": width,
        "layers": layers,
        "attention_heads": heads,
        "head_size": width // heads,
        "max_positions": 2048,
    }


FAMILIES: tuple[Family, ...] = (
    Family(
        name="gpt-neox",
        model_type="gpt_neox",
        architectures={"lm": "GPTNeoXForCausalLM", "classify": "GPTNeoXForSequenceClassification", "none": "GPTNeoXModel"},
        preset=neox,
        sizes={
            "20b": {**_size(6144, 44, 64, 50432), "activation": "gelu_tanh"},  # 2204.06745, section 2.1
            # Pythia: 2304.01373, table 1; vocabularies padded to a multiple of 128 x the tensor-parallel ranks
            "pythia-70m": _size(512, 6, 8),
            "pythia-160m": _size(768, 12, 12),
            "pythia-410m": _size(1024, 24, 16),
            "pythia-1b": _size(2048, 16, 8),
            "pythia-1.4b": _size(2048, 24, 16),
            "pythia-2.8b": _size(2560, 32, 32),
            "pythia-6.9b": _size(4096, 32, 32, 50432),
            "pythia-12b": _size(5120, 36, 40, 50688),
        },
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
            "parallel": "use_parallel_residual",
            "attention_bias": "attention_bias",
        },
        rows=_rows,
        read=_read,
        write=_write,
        defaults={
            "vocab_size": 50432,
            "hidden_size": 6144,
            "num_hidden_layers": 44,
            "num_attention_heads": 64,
            "intermediate_size": 24576,
            "hidden_act": "gelu",
            "max_position_embeddings": 2048,
            "layer_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "initializer_range": 0.02,
            "use_parallel_residual": True,
            "attention_bias": True,
            "rotary_pct": 0.25,
        },
        ignored=("*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq"),
        copies=_copies,
    ),
)
