"""GPT-J, in the layout GPTJ: GPT-2 with attention and feed-forward side by side behind one norm, and rotary positions.

    embedding ─→ [norm ─┬→ attention (rotary) ─→ +] x layers ─→ norm ─→ untied head with a bias
                        └→ feed-forward ───────→ +
"""

from __future__ import annotations

from collections.abc import Mapping
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
from norma.nn.families.gpt import prefix, second_names
from norma.nn.names import Row

STRUCTURE: Mapping[str, Any] = {
    "parallel": True,
    "shared_norm": True,
    "norm": "layer",
    "norm_bias": True,
    "rotary_interleaved": True,
    "gated": False,
    "feed_forward_bias": True,
    "head_bias": "learned",
    "classifier_bias": False,
}


def gptj(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 256,
    kv_heads: int | None = None,
    max_positions: int = 2048,
    attention_heads: int | None = None,
) -> ModelConfig:
    """GPT-J (Wang and Komatsuzaki, 2021; there is no paper: the model card of EleutherAI/gpt-j-6b and mesh-transformer-jax).

    Rotary positions on the first 64 of a head's 256 features, neighbours turned as pairs; feed-forward 4 x width; no biases in attention.
    ``kv_heads`` other than None cannot be written.
    """
    heads = attention_heads or width // head_size
    return ModelConfig(
        family="gpt-j",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        feed_forward_width=4 * width,
        max_positions=max_positions,
        rotary_size=min(64, head_size),
        activation="gelu_tanh",
        tie_embeddings=False,
        initialisation="normal",
        **STRUCTURE,
    )


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    if values["rotary_dim"] is None:
        raise NormaError("rotary_dim = null is not supported", mend="GPT-J turns the first rotary_dim features of a head")
    return {
        **STRUCTURE,
        "kv_heads": values["n_head"],
        "head_size": head_size_of(values["n_embd"], values["n_head"]),
        "feed_forward_width": values.get("n_inner") or 4 * values["n_embd"],
        "activation": read_activation(values["activation_function"]),
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    must_hold(config, "GPTJ", STRUCTURE, free=("rotary_size",))
    must_split_evenly(config, "GPTJ")
    return {
        "rotary_dim": config.rotary,
        "n_inner": config.feed_forward_width,
        "activation_function": write_activation(config.activation),
        "resid_pdrop": config.dropout, "embd_pdrop": config.dropout, "attn_pdrop": 0.0,
    }


def _rows(config: ModelConfig) -> list[Row]:
    begin = prefix(config)
    block, theirs = "decoder.blocks.{i}", f"{begin}h.{{i}}"
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}
    return [
        Row("embedding.weight", f"{begin}wte.weight"),
        *parts(f"{block}.attention_norm", f"{theirs}.ln_1"),
        *(Row(f"{block}.attention.{ours}.weight", f"{theirs}.attn.{name}.weight") for ours, name in names.items()),
        *parts(f"{block}.feed_forward.up", f"{theirs}.mlp.fc_in"),
        *parts(f"{block}.feed_forward.down", f"{theirs}.mlp.fc_out"),
        *parts("decoder.norm", f"{begin}ln_f"),
        *head_rows(config),
        *([Row("head_bias", "lm_head.bias")] if config.head == "lm" else []),
    ]


FAMILIES: tuple[Family, ...] = (
    Family(
        name="gpt-j",
        model_type="gptj",
        architectures={"lm": "GPTJForCausalLM", "classify": "GPTJForSequenceClassification", "none": "GPTJModel"},
        preset=gptj,
        sizes={"6b": {"vocab_size": 50400, "width": 4096, "layers": 28, "max_positions": 2048}},  # model card
        keys={
            "vocab_size": "vocab_size",
            "width": "n_embd",
            "layers": "n_layer",
            "attention_heads": "n_head",
            "max_positions": "n_positions",
            "norm_eps": "layer_norm_epsilon",
            "rotary_size": "rotary_dim",
            "tie_embeddings": "tie_word_embeddings",
            "initializer_range": "initializer_range",
        },
        rows=_rows,
        read=_read,
        write=_write,
        defaults={
            "n_positions": 2048,
            "rotary_dim": 64,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "tie_word_embeddings": False,
            "initializer_range": 0.02,
        },
        ignored=("*.attn.bias", "*.attn.masked_bias"),
        copies=second_names(_rows, "wte.weight"),
    ),
)
