"""Our tensor names beside a Hugging Face layout's: one table a family gives both directions.

``{i}`` stands for a layer. What the table does not name is an error: nothing is dropped or left at its initial value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig

_LLAMA = (
    ("embedding.weight", "model.embed_tokens.weight"),
    ("blocks.{i}.attention_norm.weight", "model.layers.{i}.input_layernorm.weight"),
    ("blocks.{i}.attention.query.weight", "model.layers.{i}.self_attn.q_proj.weight"),
    ("blocks.{i}.attention.key.weight", "model.layers.{i}.self_attn.k_proj.weight"),
    ("blocks.{i}.attention.value.weight", "model.layers.{i}.self_attn.v_proj.weight"),
    ("blocks.{i}.attention.output.weight", "model.layers.{i}.self_attn.o_proj.weight"),
    ("blocks.{i}.feed_forward_norm.weight", "model.layers.{i}.post_attention_layernorm.weight"),
    ("blocks.{i}.feed_forward.gate.weight", "model.layers.{i}.mlp.gate_proj.weight"),
    ("blocks.{i}.feed_forward.up.weight", "model.layers.{i}.mlp.up_proj.weight"),
    ("blocks.{i}.feed_forward.down.weight", "model.layers.{i}.mlp.down_proj.weight"),
    ("norm.weight", "model.norm.weight"),
)
_QWEN3 = (
    *_LLAMA,
    ("blocks.{i}.attention.query_norm.weight", "model.layers.{i}.self_attn.q_norm.weight"),
    ("blocks.{i}.attention.key_norm.weight", "model.layers.{i}.self_attn.k_norm.weight"),
)
_HEAD = (("head.weight", "lm_head.weight"),)
NAMES = {"llama": _LLAMA, "qwen3": _QWEN3}
ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def name_pairs(config: ModelConfig) -> dict[str, str]:
    """Every tensor of a model of this config: our name → theirs."""
    rows = NAMES[config.family] + (() if config.tie_embeddings else _HEAD)
    pairs = {}
    for ours, theirs in rows:
        for i in range(config.layers) if "{i}" in ours else (0,):
            pairs[ours.format(i=i)] = theirs.format(i=i)
    return pairs


def to_hf(config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the layout's names."""
    pairs = name_pairs(config)
    assert set(state) == set(pairs), sorted(set(state) ^ set(pairs))
    return {pairs[name]: tensor for name, tensor in state.items()}


def from_hf(config: ModelConfig, state: Mapping[str, Tensor], where: object) -> dict[str, Tensor]:
    """A layout's state dict under our names. Missing, surplus and misshapen tensors are errors that name themselves."""
    pairs = {theirs: ours for ours, theirs in name_pairs(config).items()}
    present = dict(state)
    if config.tie_embeddings:
        present.pop("lm_head.weight", None)  # some writers store the tied head twice
    present = {name: tensor for name, tensor in present.items() if not name.endswith("rotary_emb.inv_freq")}
    missing, surplus = sorted(set(pairs) - set(present)), sorted(set(present) - set(pairs))
    for problem, names in (("missing", missing), ("surplus", surplus)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise NormaError(
                f"{problem} tensors for {config.family}: {', '.join(names[:3])}{more}",
                where=where,
                mend="The weights and config.json do not belong together; fetch or save the folder again",
            )
    return {ours: present[theirs] for theirs, ours in pairs.items()}


def config_to_hf(config: ModelConfig, *, bos: int | None, eos: int | None, pad: int | None) -> dict[str, Any]:
    """``config.json`` as ``transformers`` reads it."""
    return {
        "architectures": [ARCHITECTURES[config.family]],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.attention_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.feed_forward_width,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "attention_bias": config.attention_bias,
        "mlp_bias": False,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tie_embeddings,
        "initializer_range": config.initializer_range,
        "bos_token_id": bos,
        "eos_token_id": eos,
        "pad_token_id": pad,
        "torch_dtype": "float32",
    }


def config_from_hf(values: Mapping[str, Any], where: object) -> ModelConfig:
    """Read ``config.json``. A family or a setting that this version cannot honour is refused by name."""
    family = values.get("model_type")
    if family not in NAMES:
        raise NormaError(f"model type '{family}' is not supported yet", where=where, mend=f"Supported: {', '.join(sorted(NAMES))}")
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise NormaError(f"rotary scaling '{rope.get('rope_type', rope.get('type'))}' is not supported yet", where=where)
    refused = {"hidden_act": "silu", "mlp_bias": False, "attention_bias": False, "use_sliding_window": False}
    for key, only in refused.items():
        if values.get(key, only) != only:
            raise NormaError(f"{key} = {values[key]!r} is not supported yet", where=where, mend=f"Supported: {only!r}")
    try:
        heads, width = values["num_attention_heads"], values["hidden_size"]
        return ModelConfig(
            family=family,
            vocab_size=values["vocab_size"],
            width=width,
            layers=values["num_hidden_layers"],
            attention_heads=heads,
            kv_heads=values.get("num_key_value_heads") or heads,
            head_size=values.get("head_dim") or (128 if family == "qwen3" else width // heads),
            feed_forward_width=values["intermediate_size"],
            max_positions=values.get("max_position_embeddings", 2048),
            norm_eps=values.get("rms_norm_eps", 1e-6),
            rope_theta=float(values.get("rope_theta") or rope.get("rope_theta") or 10000.0),
            qk_norm=family == "qwen3",
            tie_embeddings=bool(values.get("tie_word_embeddings", False)),
            initializer_range=values.get("initializer_range", 0.02),
        )
    except KeyError as error:
        raise NormaError(f"config.json lacks {error}", where=where) from None
