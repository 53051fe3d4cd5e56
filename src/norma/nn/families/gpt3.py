"""GPT-3 and the layout GPTNeo: GPT-2 with attention that is dense in one layer and locally banded in the next.

GPTNeo multiplies queries and keys without 1 / sqrt(head size). Writing folds our scale into the query weights, and what is read back
has ``attention_scale = 1``: the same function, with queries that carry the scale. For head sizes 16, 64 and 256 the scale is a power of
two, and no bit of the weights is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig
from norma.nn.families.base import Family, head_rows, head_size_of, must_hold, must_split_evenly, parts, read_activation, write_activation
from norma.nn.families.gpt import LEARNED, prefix, second_names
from norma.nn.names import Row, Transform

STRUCTURE: Mapping[str, Any] = {**LEARNED, "attention_bias": False}

scaled = Transform(
    lambda config, ours: [t * config.scale for t in ours],
    lambda config, theirs: [t / config.scale for t in theirs],
)
"""Query weights ↔ query weights that carry the scale of the scores."""


def gpt3(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 2048,
    attention_heads: int | None = None,
    window: int = 256,
) -> ModelConfig:
    """GPT-3 (Brown et al., 2005.14165, section 2.1): GPT-2's architecture and initialisation, context 2,048, feed-forward 4 x width.

    Layers alternate between dense and locally banded attention (as in the Sparse Transformer, 1904.10509); the paper does not say how
    wide the band is, ``window`` is GPT-Neo's. The layout has no biases on query, key and value, so this preset has none either.
    Sizes whose heads do not add up to the width (XL: 24 x 128 beside 2,048; 13B: 40 x 128 beside 5,140) can be built and trained, but
    not written: GPTNeo has no place for them. (With the heads that table 2.1 prints, XL has 1.52 billion weights, not 1.3.)
    """
    heads = attention_heads or width // head_size
    return ModelConfig(
        family="gpt3",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        feed_forward_width=4 * width,
        max_positions=max_positions,
        activation="gelu_tanh",
        windows=(0, window),
        initialisation="gpt2",
        **STRUCTURE,
    )


def shortest(pattern: Sequence[int]) -> tuple[int, ...]:
    """The shortest start of ``pattern`` that, repeated, gives all of it."""
    for n in range(1, len(pattern)):
        if all(value == pattern[i % n] for i, value in enumerate(pattern)):
            return tuple(pattern[:n])
    return tuple(pattern)


def _read_windows(values: Mapping[str, Any]) -> tuple[int, ...]:
    """``attention_types`` [[[kind, ...], times], ...] → how far each layer looks."""
    kinds = [kind for names, times in values["attention_types"] for _ in range(times) for kind in names]
    unknown = sorted(set(kinds) - {"global", "local"})
    if unknown:
        raise NormaError(f"attention_types has '{unknown[0]}'", mend="Known: global, local")
    if len(kinds) != values["num_layers"]:
        raise NormaError(f"attention_types describes {len(kinds)} layers, num_layers says {values['num_layers']}", mend="Make them agree")
    return shortest([values["window_size"] if kind == "local" else 0 for kind in kinds])


def _write_windows(config: ModelConfig) -> dict[str, Any]:
    sizes = sorted({config.window(i) for i in range(config.layers)} - {0})
    if len(sizes) > 1:
        raise NormaError(f"GPTNeo cannot hold windows of {sizes[0]} and {sizes[1]}", where="gpt3", mend="It has one window size")
    kinds = ["local" if config.window(i) else "global" for i in range(config.layers)]
    n = len(config.windows)
    types = [[kinds[:n], config.layers // n]] if config.layers % n == 0 else [[kinds, 1]]
    return {"attention_types": types, "window_size": sizes[0] if sizes else 256}


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **STRUCTURE,
        "kv_heads": values["num_heads"],
        "head_size": head_size_of(values["hidden_size"], values["num_heads"]),
        "feed_forward_width": values.get("intermediate_size") or 4 * values["hidden_size"],
        "activation": read_activation(values["activation_function"]),
        "attention_scale": 1.0,
        "windows": _read_windows(values),
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    must_hold(config, "GPTNeo", STRUCTURE, free=("attention_scale", "windows"))
    must_split_evenly(config, "GPTNeo")
    return {
        "intermediate_size": config.feed_forward_width,
        "activation_function": write_activation(config.activation),
        **_write_windows(config),
        "resid_dropout": config.dropout,
        "embed_dropout": config.dropout,
        "attention_dropout": 0.0,
    }


def _rows(config: ModelConfig) -> list[Row]:
    begin = prefix(config)
    block, theirs = "decoder.blocks.{i}", f"{begin}h.{{i}}"
    attention, their_attention = f"{block}.attention", f"{theirs}.attn.attention"
    return [
        Row("embedding.weight", f"{begin}wte.weight"),
        Row("decoder.position_embedding.weight", f"{begin}wpe.weight"),
        *parts(f"{block}.attention_norm", f"{theirs}.ln_1"),
        Row(f"{attention}.query.weight", f"{their_attention}.q_proj.weight", scaled),
        *parts(f"{attention}.key", f"{their_attention}.k_proj", bias=False),
        *parts(f"{attention}.value", f"{their_attention}.v_proj", bias=False),
        *parts(f"{attention}.output", f"{their_attention}.out_proj"),
        *parts(f"{block}.feed_forward_norm", f"{theirs}.ln_2"),
        *parts(f"{block}.feed_forward.up", f"{theirs}.mlp.c_fc"),
        *parts(f"{block}.feed_forward.down", f"{theirs}.mlp.c_proj"),
        *parts("decoder.norm", f"{begin}ln_f"),
        *head_rows(config),
    ]


def _size(width: int, layers: int, heads: int, head_size: int) -> dict[str, int]:
    return {"vocab_size": 50257, "width": width, "layers": layers, "attention_heads": heads, "head_size": head_size, "max_positions": 2048}


FAMILIES: tuple[Family, ...] = (
    Family(
        name="gpt3",
        model_type="gpt_neo",
        architectures={"lm": "GPTNeoForCausalLM", "classify": "GPTNeoForSequenceClassification", "none": "GPTNeoModel"},
        preset=gpt3,
        sizes={  # table 2.1
            "small": _size(768, 12, 12, 64),
            "medium": _size(1024, 24, 16, 64),
            "large": _size(1536, 24, 16, 96),
            "xl": _size(2048, 24, 24, 128),
            "2.7b": _size(2560, 32, 32, 80),
            "6.7b": _size(4096, 32, 32, 128),
            "13b": _size(5140, 40, 40, 128),
            "175b": _size(12288, 96, 96, 128),
        },
        keys={
            "vocab_size": "vocab_size",
            "width": "hidden_size",
            "layers": "num_layers",
            "attention_heads": "num_heads",
            "max_positions": "max_position_embeddings",
            "norm_eps": "layer_norm_epsilon",
            "tie_embeddings": "tie_word_embeddings",
            "initializer_range": "initializer_range",
        },
        rows=_rows,
        read=_read,
        write=_write,
        defaults={
            "vocab_size": 50257,
            "hidden_size": 2048,
            "num_layers": 24,
            "num_heads": 16,
            "max_position_embeddings": 2048,
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": True,
            "initializer_range": 0.02,
            "activation_function": "gelu_new",
            "attention_types": [[["global", "local"], 12]],
            "window_size": 256,
        },
        ignored=("*.attn.attention.bias", "*.attn.attention.masked_bias"),
        copies=second_names(_rows, "wte.weight"),
    ),
)
