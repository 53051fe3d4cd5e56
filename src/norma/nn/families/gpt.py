"""GPT and GPT-2, and their layouts OpenAIGPT and GPT2.

    embedding + learned positions ─→ blocks (LayerNorm after the residual in GPT, before the sublayer in GPT-2) ─→ tied head

Both layouts keep weights as (in, out), "Conv1D", and query, key and value in one tensor. Published files leave out the prefix
``transformer.`` and hold masks besides the weights; both are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig
from norma.nn.families.base import (
    Family,
    head_rows,
    head_size_of,
    must_hold,
    must_split_evenly,
    parts,
    read_activation,
    write_activation,
)
from norma.nn.names import Row, qkv, transposed

PREFIX = "transformer."

LEARNED: Mapping[str, Any] = {
    "positions": "learned",
    "norm": "layer",
    "norm_bias": True,
    "attention_bias": True,
    "attention_output_bias": True,
    "gated": False,
    "feed_forward_bias": True,
    "classifier_bias": False,
}
"""What GPT and GPT-2 share."""

POST: Mapping[str, Any] = {**LEARNED, "norm_placement": "post"}


def gpt(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    attention_heads: int | None = None,
) -> ModelConfig:
    """GPT (Radford et al., 2018, "Improving language understanding by generative pre-training", section 4.1, model specifications).

    Post-norm, learned positions, GELU in its tanh form, feed-forward 4 x width, dropout 0.1, weights from N(0, 0.02); the token scores
    use the embedding (section 3.1, eq. 2). ``kv_heads`` other than None (grouped queries) cannot be written.
    """
    heads = attention_heads or width // head_size
    return ModelConfig(
        family="gpt",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        feed_forward_width=4 * width,
        max_positions=max_positions,
        activation="gelu_tanh",
        dropout=0.1,
        initialisation="normal",
        **POST,
    )


def gpt2(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 1024,
    attention_heads: int | None = None,
) -> ModelConfig:
    """GPT-2 (Radford et al., 2019, "Language models are unsupervised multitask learners", section 2.3).

    GPT with the norm moved to the input of each sublayer, one more after the last block, and the weights of residual projections scaled
    at initialisation by 1 / sqrt(residual layers). Context 1,024. ``kv_heads`` other than None cannot be written.
    """
    heads = attention_heads or width // head_size
    return ModelConfig(
        family="gpt2",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        feed_forward_width=4 * width,
        max_positions=max_positions,
        activation="gelu_tanh",
        initialisation="gpt2",
        **LEARNED,
    )


def prefix(config: ModelConfig) -> str:
    """Base models have none."""
    return "" if config.head == "none" else PREFIX


def second_names(rows: Callable[[ModelConfig], Sequence[Row]], embedding: str) -> Callable[[ModelConfig], dict[str, str]]:
    """Names without the prefix, as published checkpoints have them, and the tied head's."""

    def names(config: ModelConfig) -> dict[str, str]:
        begin = prefix(config)
        tied = {"lm_head.weight": f"{begin}{embedding}"} if config.tie_embeddings else {}
        theirs = [name for row in rows(config) for _, names, _ in row.expand(config) for name in names]
        return {**tied, **{name.removeprefix(begin): name for name in theirs if begin and name.startswith(begin)}}

    return names


def _rows(config: ModelConfig, embedding: str, positions: str) -> list[Row]:
    begin = prefix(config)
    block, theirs = "decoder.blocks.{i}", f"{begin}h.{{i}}"
    attention = [f"{block}.attention.{part}" for part in ("query", "key", "value")]
    return [
        Row("embedding.weight", f"{begin}{embedding}"),
        Row("decoder.position_embedding.weight", f"{begin}{positions}"),
        *parts(f"{block}.attention_norm", f"{theirs}.ln_1"),
        Row(tuple(f"{name}.weight" for name in attention), f"{theirs}.attn.c_attn.weight", qkv.then(transposed)),
        Row(tuple(f"{name}.bias" for name in attention), f"{theirs}.attn.c_attn.bias", qkv),
        Row(f"{block}.attention.output.weight", f"{theirs}.attn.c_proj.weight", transposed),
        Row(f"{block}.attention.output.bias", f"{theirs}.attn.c_proj.bias"),
        *parts(f"{block}.feed_forward_norm", f"{theirs}.ln_2"),
        Row(f"{block}.feed_forward.up.weight", f"{theirs}.mlp.c_fc.weight", transposed),
        Row(f"{block}.feed_forward.up.bias", f"{theirs}.mlp.c_fc.bias"),
        Row(f"{block}.feed_forward.down.weight", f"{theirs}.mlp.c_proj.weight", transposed),
        Row(f"{block}.feed_forward.down.bias", f"{theirs}.mlp.c_proj.bias"),
        *(parts("decoder.norm", f"{begin}ln_f") if config.norm_placement == "pre" else ()),
        *head_rows(config),
    ]


def _gpt_rows(config: ModelConfig) -> list[Row]:
    return _rows(config, "tokens_embed.weight", "positions_embed.weight")


def _gpt2_rows(config: ModelConfig) -> list[Row]:
    return _rows(config, "wte.weight", "wpe.weight")


def _sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"kv_heads": values["n_head"], "head_size": head_size_of(values["n_embd"], values["n_head"])}


_GPT_ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}
"""OpenAIGPT has a table of its own, in which "gelu" is the tanh form."""


def _read_gpt(values: Mapping[str, Any]) -> dict[str, Any]:
    activation = read_activation(values["afn"], _GPT_ACTIVATIONS)
    return {**POST, **_sizes(values), "feed_forward_width": 4 * values["n_embd"], "activation": activation}


def _write_gpt(config: ModelConfig) -> dict[str, Any]:
    must_hold(config, "OpenAIGPT", POST)
    must_split_evenly(config, "OpenAIGPT")
    if config.feed_forward_width != 4 * config.width:
        raise NormaError(
            f"OpenAIGPT cannot hold feed_forward_width = {config.feed_forward_width}", where="gpt", mend=f"It has {4 * config.width}"
        )
    return {"afn": write_activation(config.activation, _GPT_ACTIVATIONS), **_dropout(config)}


def _read_gpt2(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **LEARNED,
        **_sizes(values),
        "feed_forward_width": values.get("n_inner") or 4 * values["n_embd"],
        "activation": read_activation(values["activation_function"]),
        "attention_scale": None if values["scale_attn_weights"] else 1.0,
    }


def _write_gpt2(config: ModelConfig) -> dict[str, Any]:
    must_hold(config, "GPT2", LEARNED, free=("attention_scale",))
    must_split_evenly(config, "GPT2")
    if config.scale not in (1.0, config.head_size**-0.5):
        raise NormaError(f"GPT2 cannot hold attention_scale = {config.scale}", where="gpt2", mend="It has 1 / sqrt(head_size) or 1")
    return {
        "n_inner": config.feed_forward_width,
        "activation_function": write_activation(config.activation),
        "scale_attn_weights": config.scale == config.head_size**-0.5,
        **_dropout(config),
    }


def _dropout(config: ModelConfig) -> dict[str, Any]:
    return {"resid_pdrop": config.dropout, "embd_pdrop": config.dropout, "attn_pdrop": 0.0}


_KEYS = {
    "vocab_size": "vocab_size",
    "width": "n_embd",
    "layers": "n_layer",
    "attention_heads": "n_head",
    "max_positions": "n_positions",
    "norm_eps": "layer_norm_epsilon",
    "tie_embeddings": "tie_word_embeddings",
    "initializer_range": "initializer_range",
}
_DEFAULTS = {"n_embd": 768, "n_layer": 12, "n_head": 12, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True, "initializer_range": 0.02}

FAMILIES: tuple[Family, ...] = (
    Family(
        name="gpt",
        model_type="openai-gpt",
        architectures={"lm": "OpenAIGPTLMHeadModel", "classify": "OpenAIGPTForSequenceClassification", "none": "OpenAIGPTModel"},
        preset=gpt,
        sizes={"base": {"vocab_size": 40478, "width": 768, "layers": 12, "max_positions": 512}},  # 40,000 merges, 478 characters
        keys=_KEYS,
        rows=_gpt_rows,
        read=_read_gpt,
        write=_write_gpt,
        defaults={**_DEFAULTS, "vocab_size": 40478, "n_positions": 512, "afn": "gelu"},
        ignored=("*.attn.bias", "*position_ids"),
        copies=second_names(_gpt_rows, "tokens_embed.weight"),
    ),
    Family(
        name="gpt2",
        model_type="gpt2",
        architectures={"lm": "GPT2LMHeadModel", "classify": "GPT2ForSequenceClassification", "none": "GPT2Model"},
        preset=gpt2,
        sizes={
            "small": {"vocab_size": 50257, "width": 768, "layers": 12, "max_positions": 1024},  # table 2
            "medium": {"vocab_size": 50257, "width": 1024, "layers": 24, "max_positions": 1024},
            "large": {"vocab_size": 50257, "width": 1280, "layers": 36, "max_positions": 1024},
            "xl": {"vocab_size": 50257, "width": 1600, "layers": 48, "max_positions": 1024},
        },
        keys=_KEYS,
        rows=_gpt2_rows,
        read=_read_gpt2,
        write=_write_gpt2,
        fixed={"scale_attn_by_inverse_layer_idx": False, "reorder_and_upcast_attn": False, "add_cross_attention": False},
        defaults={**_DEFAULTS, "vocab_size": 50257, "n_positions": 1024, "activation_function": "gelu_new", "scale_attn_weights": True},
        ignored=("*.attn.bias", "*.attn.masked_bias"),
        copies=second_names(_gpt2_rows, "wte.weight"),
    ),
)
