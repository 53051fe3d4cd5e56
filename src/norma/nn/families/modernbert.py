"""ModernBERT, and the layout ModernBert.

    embedding ─→ norm ─→ blocks (bidirectional, rotary, a norm before each sublayer, GeGLU) ─→ norm ─→ hidden states
    hidden states ─→ dense, GELU, norm ─→ · embedding + bias        (lm)
                  ─→ first or mean ─→ dense, GELU, norm ─→ classifier   (classify; tokens and span without the pooling)

Every third layer sees the whole text and turns with a long base, the others see their neighbours and turn with a short one. The first
block has no norm before attention: the embedding's has just run. Query, key and value are one tensor in the layout, as are gate and up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig
from norma.nn.families.base import Family, head_size_of, must_hold, must_split_evenly, parts, read_activation, write_activation
from norma.nn.families.gpt3 import shortest
from norma.nn.names import Row, gate_up, qkv

STRUCTURE: Mapping[str, Any] = {
    "causal": False,
    "norm": "layer",
    "embedding_norm": True,
    "first_attention_norm": False,
    "head_transform": True,
}

GLOBAL, LOCAL = "full_attention", "sliding_attention"
HELD = (
    *("norm_bias", "attention_bias", "attention_output_bias", "feed_forward_bias", "head_bias", "head_transform_bias"),
    *("windows", "rope_theta", "rope_theta_local", "pooling"),
)


def modernbert(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 8192,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
    local_attention: int = 128,
    global_every: int = 3,
    pooling: Literal["first", "mean"] = "mean",
    pad_id: int | None = None,
) -> ModelConfig:
    """ModernBERT (Warner et al., 2412.13663).

    No biases but the decoder's, in linear layers and norms (section 2.1.1, "Bias terms"); rotary positions; pre-norm with a norm after the
    embeddings and none before the first attention ("Normalization"); GeGLU ("Activation"). Every third layer is global with rotary base
    160,000, the others see the 64 tokens on either side, with base 10,000 (section 2.1.2, "Alternating Attention"). Initialisation as
    Megatron's (section 2.2.2). Feed-forward 3 / 2 of the width as in base (table 4), to a multiple of 32. Dropout 0: the authors drop
    out attention's output alone, for which there is no field.
    Heads have a dense layer, GELU and a norm in front. ``pooling`` is that of the published config.json. ``kv_heads`` other than None
    cannot be written.
    """
    heads = attention_heads or width // head_size
    near = local_attention // 2 + 1
    return ModelConfig(
        family="modernbert",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        feed_forward_width=feed_forward_width or round(width * 1.5 / 32) * 32,
        max_positions=max_positions,
        pad_id=pad_id,
        windows=shortest([near if i % global_every else 0 for i in range(layers)]),
        rope_theta=160000.0,
        rope_theta_local=10000.0,
        activation="gelu",
        head_bias="learned",
        head_transform_bias=False,
        pooling=pooling,
        initialisation="megatron",
        **STRUCTURE,
    )


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    if values["classifier_activation"] != values["hidden_activation"]:
        raise NormaError(
            f"classifier_activation = {values['classifier_activation']!r} is not supported",
            mend=f"Supported: the blocks' own, {values['hidden_activation']!r}",
        )
    if values["classifier_pooling"] not in ("cls", "mean"):
        raise NormaError(f"classifier_pooling = {values['classifier_pooling']!r} is not supported", mend="Supported: 'cls', 'mean'")
    return {
        **STRUCTURE,
        "kv_heads": values["num_attention_heads"],
        "head_size": head_size_of(values["hidden_size"], values["num_attention_heads"]),
        "activation": read_activation(values["hidden_activation"]),
        "attention_output_bias": values["attention_bias"],
        "head_bias": "learned" if values["decoder_bias"] else "none",
        "pooling": "first" if values["classifier_pooling"] == "cls" else "mean",
        "windows": _read_windows(values),
        **_read_rope(values),
        **({} if "pad_token_id" in values else {"pad_id": 50283}),  # what the layout's reader assumes
    }


def _read_windows(values: Mapping[str, Any]) -> tuple[int, ...]:
    """A local layer sees keys up to half of ``local_attention`` away, that distance included; ours counts those less than a window away."""
    layers, kinds = values["num_hidden_layers"], values.get("layer_types")
    if kinds is None:
        every = values["global_attn_every_n_layers"]
        kinds = [LOCAL if i % every else GLOBAL for i in range(layers)]
    if len(kinds) != layers or not set(kinds) <= {GLOBAL, LOCAL}:
        raise NormaError(f"layer_types = {kinds!r} is not supported", mend=f"Each of the {layers} layers must be {GLOBAL} or {LOCAL}")
    near = values["local_attention"] // 2 + 1
    return shortest([near if kind == LOCAL else 0 for kind in kinds])


def _read_rope(values: Mapping[str, Any]) -> dict[str, Any]:
    """Both bases, from ``rope_parameters`` (transformers 5) or from the two keys before it."""
    entries = values.get("rope_parameters") or {}
    whole, near = entries.get(GLOBAL) or {}, entries.get(LOCAL) or {}
    for entry in (whole, near, values.get("rope_scaling") or {}):
        kind = entry.get("rope_type", entry.get("type", "default"))
        if kind != "default":
            raise NormaError(f"rope_type '{kind}' is not supported for modernbert", mend="Supported: default")
    far = whole.get("rope_theta", values["global_rope_theta"])
    local = near.get("rope_theta", values.get("local_rope_theta", 10000.0))
    return {"rope_theta": float(far), "rope_theta_local": None if local is None else float(local)}  # null: one base for all layers


def _write(config: ModelConfig) -> dict[str, Any]:
    must_hold(config, "ModernBert", STRUCTURE, free=HELD)
    must_split_evenly(config, "ModernBert")
    if config.attention_output_bias != config.attention_bias:
        raise NormaError("ModernBert cannot hold attention_output_bias unlike attention_bias", where="modernbert", mend="Make them alike")
    if config.head_bias == "fixed":
        raise NormaError("ModernBert cannot hold head_bias = 'fixed'", where="modernbert", mend="It has 'learned' or 'none'")
    windows = [config.window(i) for i in range(config.layers)]
    sizes = sorted(set(windows) - {0})
    if len(sizes) > 1:
        raise NormaError(f"ModernBert cannot hold windows of different sizes, {sizes}", where="modernbert", mend="It has one")
    kinds = [LOCAL if window else GLOBAL for window in windows]
    local = config.rope_theta if config.rope_theta_local is None else config.rope_theta_local
    return {
        "hidden_activation": write_activation(config.activation),
        "classifier_activation": write_activation(config.activation),
        "decoder_bias": config.head_bias == "learned",
        "classifier_pooling": "cls" if config.pooling == "first" else "mean",
        "layer_types": kinds,
        **_every(kinds),
        "local_attention": 2 * (sizes[0] - 1) if sizes else 128,
        "rope_parameters": {
            GLOBAL: {"rope_type": "default", "rope_theta": config.rope_theta},
            LOCAL: {"rope_type": "default", "rope_theta": local},
        },
        "global_rope_theta": config.rope_theta,
        "local_rope_theta": local,
        "cls_token_id": None,  # the tokenizer's affair
        "sep_token_id": None,
        "embedding_dropout": config.dropout,
        "mlp_dropout": config.dropout,
        "attention_dropout": 0.0,
        "classifier_dropout": 0.0,
    }


def _every(kinds: Sequence[str]) -> dict[str, int]:
    """The key that transformers 4 reads instead of ``layer_types``, where it can say the same."""
    for step in range(1, len(kinds) + 1):
        if list(kinds) == [LOCAL if i % step else GLOBAL for i in range(len(kinds))]:
            return {"global_attn_every_n_layers": step}
    return {}


def _rows(config: ModelConfig) -> list[Row]:
    begin = "" if config.head == "none" else "model."
    block, theirs = "encoder.blocks.{i}", f"{begin}layers.{{i}}"
    attention = [f"{block}.attention.{part}" for part in ("query", "key", "value")]
    wide = [f"{block}.feed_forward.{part}" for part in ("gate", "up")]
    rows = [
        Row("embedding.weight", f"{begin}embeddings.tok_embeddings.weight"),
        *parts("encoder.embedding_norm", f"{begin}embeddings.norm", bias=config.norm_bias),
        *_norm(config, f"{block}.attention_norm", f"{theirs}.attn_norm", layers=range(1, config.layers)),
        Row(tuple(f"{name}.weight" for name in attention), f"{theirs}.attn.Wqkv.weight", qkv),
        *parts(f"{block}.attention.output", f"{theirs}.attn.Wo", bias=config.attention_output_bias),
        *_norm(config, f"{block}.feed_forward_norm", f"{theirs}.mlp_norm"),
        Row(tuple(f"{name}.weight" for name in wide), f"{theirs}.mlp.Wi.weight", gate_up),
        *parts(f"{block}.feed_forward.down", f"{theirs}.mlp.Wo", bias=config.feed_forward_bias),
        *parts("encoder.norm", f"{begin}final_norm", bias=config.norm_bias),
    ]
    if config.attention_bias:
        rows.append(Row(tuple(f"{name}.bias" for name in attention), f"{theirs}.attn.Wqkv.bias", qkv))
    if config.feed_forward_bias:
        rows.append(Row(tuple(f"{name}.bias" for name in wide), f"{theirs}.mlp.Wi.bias", gate_up))
    if config.head != "none":
        rows += parts("head_transform", "head.dense", bias=config.head_transform_bias)
        rows += parts("head_norm", "head.norm", bias=config.norm_bias)
    if config.head == "lm":
        rows += [] if config.tie_embeddings else [Row("head.weight", "decoder.weight")]
        rows += [Row("head_bias", "decoder.bias")] if config.head_bias == "learned" else []
    elif config.head != "none":
        rows += parts("classifier", "classifier")
    return rows


def _norm(config: ModelConfig, ours: str, theirs: str, layers: range | None = None) -> list[Row]:
    parts_of = ("weight", "bias") if config.norm_bias else ("weight",)
    return [Row(f"{ours}.{part}", f"{theirs}.{part}", layers=layers) for part in parts_of]


def _copies(config: ModelConfig) -> dict[str, str]:
    tied = config.head == "lm" and config.tie_embeddings
    return {"decoder.weight": "model.embeddings.tok_embeddings.weight"} if tied else {}


def _size(layers: int, width: int, inner: int) -> dict[str, Any]:
    return {"vocab_size": 50368, "width": width, "layers": layers, "feed_forward_width": inner, "max_positions": 8192, "pad_id": 50283}


FAMILIES: tuple[Family, ...] = (
    Family(
        name="modernbert",
        model_type="modernbert",
        architectures={
            "lm": "ModernBertForMaskedLM",
            "classify": "ModernBertForSequenceClassification",
            "tokens": "ModernBertForTokenClassification",
            "span": "ModernBertForQuestionAnswering",
            "none": "ModernBertModel",
        },
        preset=modernbert,
        sizes={"base": _size(22, 768, 1152), "large": _size(28, 1024, 2624)},  # 2412.13663, table 4
        keys={
            "vocab_size": "vocab_size",
            "width": "hidden_size",
            "layers": "num_hidden_layers",
            "attention_heads": "num_attention_heads",
            "feed_forward_width": "intermediate_size",
            "max_positions": "max_position_embeddings",
            "norm_eps": "norm_eps",
            "norm_bias": "norm_bias",
            "attention_bias": "attention_bias",
            "feed_forward_bias": "mlp_bias",
            "head_transform_bias": "classifier_bias",
            "tie_embeddings": "tie_word_embeddings",
            "initializer_range": "initializer_range",
        },
        rows=_rows,
        read=_read,
        write=_write,
        defaults={
            "vocab_size": 50368,
            "hidden_size": 768,
            "num_hidden_layers": 22,
            "num_attention_heads": 12,
            "intermediate_size": 1152,
            "hidden_activation": "gelu",
            "classifier_activation": "gelu",
            "max_position_embeddings": 8192,
            "norm_eps": 1e-5,
            "norm_bias": False,
            "attention_bias": False,
            "mlp_bias": False,
            "decoder_bias": True,
            "classifier_bias": False,
            "classifier_pooling": "cls",
            "local_attention": 128,
            "global_attn_every_n_layers": 3,
            "global_rope_theta": 160000.0,
            "tie_word_embeddings": True,
            "initializer_range": 0.02,
        },
        copies=_copies,
        pads=True,
    ),
)
