"""What the layouts of Llama and its descendants share: names of tensors, keys of ``config.json``, and how windows are written.

    config.json ─→ common(values), windows_of(layer_types) ─→ our fields          our fields ─→ entries(config), layer_types(config)
    rows(config): one table for all of them; where a norm stands decides what it is called
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig
from norma.nn.families.base import head_rows, head_size_of, must_hold, parts, read_activation, write_activation
from norma.nn.families.rope import read_rope, rope_entries, write_rope
from norma.nn.names import Row

KEYS: Mapping[str, str] = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "attention_heads": "num_attention_heads",
    "feed_forward_width": "intermediate_size",
    "max_positions": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
    "initializer_range": "initializer_range",
}
"""Our field → their key. The sizes have no defaults here: a file without them is broken."""

DEFAULTS: Mapping[str, Any] = {
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
    "hidden_act": "silu",
}

FREE = ("rope_theta", "rope_scaling", "classifier_bias")
"""Fields that all these layouts hold; a classifier's bias matters only where there is a classifier, see :func:`entries`."""

IGNORED = ("*.rotary_emb.inv_freq",)

SLIDING, FULL = "sliding_attention", "full_attention"

_NORMS: Mapping[str, Mapping[str, str]] = {
    "pre": {"attention_norm": "input_layernorm", "feed_forward_norm": "post_attention_layernorm"},
    "output": {"attention_norm": "post_attention_layernorm", "feed_forward_norm": "post_feedforward_layernorm"},
    "both": {
        "attention_norm": "input_layernorm",
        "attention_output_norm": "post_attention_layernorm",
        "feed_forward_norm": "pre_feedforward_layernorm",
        "feed_forward_output_norm": "post_feedforward_layernorm",
    },
}


def rows(config: ModelConfig) -> list[Row]:
    """The name table. Layers with experts are left out: their rows are their family's."""
    begin = "" if config.head == "none" else "model."
    block, theirs = "decoder.blocks.{i}", f"{begin}layers.{{i}}"
    dense = [i for i in range(config.layers) if not config.sparse(i)]
    biases = {"query": config.attention_bias, "key": config.attention_bias, "value": config.attention_bias}
    biases["output"] = config.attention_output_bias
    table = [Row("embedding.weight", f"{begin}embed_tokens.weight")]
    table += [Row(f"{block}.{n}.weight", f"{theirs}.{m}.weight") for n, m in _NORMS[config.norm_placement].items()]
    for name, bias in biases.items():
        table += parts(f"{block}.attention.{name}", f"{theirs}.self_attn.{name[0]}_proj", bias=bias)
    if config.qk_norm != "none":
        table += [Row(f"{block}.attention.{n}_norm.weight", f"{theirs}.self_attn.{n[0]}_norm.weight") for n in ("query", "key")]
    for name in ("gate", "up", "down"):
        for kind in ("weight", "bias") if config.feed_forward_bias else ("weight",):
            table.append(Row(f"{block}.feed_forward.{name}.{kind}", f"{theirs}.mlp.{name}_proj.{kind}", layers=dense))
    return [*table, Row("decoder.norm.weight", f"{begin}norm.weight"), *head_rows(config)]


def copies(config: ModelConfig) -> dict[str, str]:
    """Some writers store a tied head as well."""
    return {"lm_head.weight": "model.embed_tokens.weight"} if config.tie_embeddings and config.head == "lm" else {}


def architectures(name: str) -> dict[str, str]:
    """The layout's classes for our heads."""
    return {"lm": f"{name}ForCausalLM", "classify": f"{name}ForSequenceClassification", "none": f"{name}Model"}


# ── reading ──
def common(values: Mapping[str, Any], structure: Mapping[str, Any], *, kv_heads: int | None = None) -> dict[str, Any]:
    """Our fields that all these layouts hold alike, on top of ``structure``.

    Args:
        kv_heads: what the layout assumes when ``num_key_value_heads`` is absent; None, and where it is null: as many as heads.
    """
    rope = rope_entries(values)
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise NormaError("rope_parameters that differ between layers are not supported", mend="Supported: one set for all layers")
    for place in (rope, values):
        if place.get("partial_rotary_factor") not in (None, 1, 1.0):
            raise NormaError(f"partial_rotary_factor = {place['partial_rotary_factor']!r} is not supported", mend="Supported: 1.0")
    heads = values["num_attention_heads"]
    return {
        **structure,
        **read_rope(values, 10000.0),
        "kv_heads": values.get("num_key_value_heads", kv_heads) or heads,
        "head_size": values.get("head_dim") or head_size_of(values["hidden_size"], heads),
        "activation": read_activation(values["hidden_act"]),
        "classifier_bias": False,
    }


def windows_of(types: Sequence[str], window: int | None, layers: int) -> tuple[int, ...]:
    """The shortest repeating pattern of windows for ``layer_types``; ``window`` is ``sliding_window``.

    Raises NormaError for a kind of layer that this version does not have, and where the three do not fit together.
    """
    unknown = sorted(set(types) - {SLIDING, FULL})
    if unknown:
        raise NormaError(f"layer type '{unknown[0]}' is not supported", mend=f"Supported: {FULL}, {SLIDING}")
    if len(types) != layers:
        raise NormaError(f"layer_types has {len(types)} entries for {layers} layers")
    if SLIDING in types and not window:
        raise NormaError(f"layer_types has {SLIDING}, but there is no sliding_window", mend="Set sliding_window, or use_sliding_window")
    return shortest([(window or 0) if kind == SLIDING else 0 for kind in types])


def shortest(whole: Sequence[int]) -> tuple[int, ...]:
    """The shortest pattern whose repetition begins with ``whole``."""
    lengths = range(1, len(whole) + 1)
    return next(tuple(whole[:n]) for n in lengths if all(value == whole[i % n] for i, value in enumerate(whole)))


def late_windows(values: Mapping[str, Any]) -> tuple[int, ...]:
    """Qwen's windows: ``layer_types``, else the layers from ``max_window_layers`` on; none unless ``use_sliding_window``."""
    layers = values["num_hidden_layers"]
    window = values.get("sliding_window", 4096) if values["use_sliding_window"] else None
    types = values.get("layer_types")
    if types is None:
        types = [SLIDING if window and i >= values["max_window_layers"] else FULL for i in range(layers)]
    return windows_of(types, window, layers)


# ── writing ──
def entries(config: ModelConfig, layout: str, structure: Mapping[str, Any], free: Sequence[str] = ()) -> dict[str, Any]:
    """The entries of ``config.json`` that all these layouts hold alike.

    Args:
        structure, free: as :func:`norma.nn.families.base.must_hold` has them.

    Raises:
        NormaError: a choice that the layout cannot hold. Dropout is left out, which these layouts have only in attention.
    """
    must_hold(config, layout, structure, free=(*FREE, *free))
    if config.head == "classify" and config.classifier_bias:
        raise NormaError(f"{layout} cannot hold classifier_bias = True", where=config.family, mend="It has False")
    return {
        "num_key_value_heads": config.kv_heads,
        "hidden_act": write_activation(config.activation),
        "attention_dropout": 0.0,
        **write_rope(config),
    }


def head_dim(config: ModelConfig) -> dict[str, int]:
    """For layouts that know ``head_dim`` only as an extra: the entry where it is needed."""
    return {"head_dim": config.head_size} if config.attention_heads * config.head_size != config.width else {}


def one_output_bias(config: ModelConfig, layout: str) -> None:
    """Raise NormaError where queries have a bias and the output has none, or the other way round."""
    if config.attention_output_bias != config.attention_bias:
        raise NormaError(f"{layout} cannot hold attention_output_bias without attention_bias, or the other way round", where=config.family)


def even_width(config: ModelConfig, layout: str) -> None:
    """Raise NormaError for a width that is not a multiple of the number of heads, which some readers insist on."""
    if config.width % config.attention_heads:
        raise NormaError(
            f"{layout} cannot hold attention_heads = {config.attention_heads} with width {config.width}",
            where=config.family,
            mend="The width must be a multiple of attention_heads",
        )


def layer_types(config: ModelConfig, layout: str) -> dict[str, Any]:
    """``sliding_window`` and ``layer_types``. Raises NormaError for windows of several sizes."""
    windows = [config.window(i) for i in range(config.layers)]
    sizes = sorted(set(windows) - {0})
    if len(sizes) > 1:
        raise NormaError(f"{layout} cannot hold windows = {config.windows}", where=config.family, mend="It has one size of window")
    return {"sliding_window": sizes[0] if sizes else None, "layer_types": [SLIDING if window else FULL for window in windows]}


def late_layer_types(config: ModelConfig, layout: str) -> dict[str, Any]:
    """Qwen's entries for windows; ``max_window_layers`` is for readers that do not know ``layer_types``."""
    written = layer_types(config, layout)
    types = written["layer_types"]
    first = types.index(SLIDING) if SLIDING in types else config.layers
    return {**written, "use_sliding_window": SLIDING in types, "max_window_layers": first}


# ── presets ──
def build(family: str, width: int, head_size: int, attention_heads: int | None, kv_heads: int | None, **choices: Any) -> ModelConfig:
    """A config with as many heads as fit the width unless told, and as many keys and values unless told."""
    heads = attention_heads or width // head_size
    return ModelConfig(
        family=family,
        width=width,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        **{"classifier_bias": False, **choices},
    )


def two_thirds(width: int) -> int:
    """Inner features of a gated layer that has as many weights as an ungated one of 4 x width (Touvron et al., 2302.13971, 2.2)."""
    return round(width * 8 / 3 / 64) * 64
