"""Llama, Mistral, Qwen2, Qwen3."""

from __future__ import annotations

from typing import Any

from norma.bench.parity import Case

IDS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
SMALL: dict[str, Any] = {
    "vocab_size": 43,
    "hidden_size": 30,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 4,
    "intermediate_size": 50,
    "max_position_embeddings": 37,
    **IDS,
}
PRESET: dict[str, Any] = {"vocab_size": 41, "width": 36, "layers": 2, "head_size": 12, "max_positions": 29}
TIED: dict[str, Any] = {"tie_word_embeddings": True}
LATE = ["full_attention", "sliding_attention", "sliding_attention"]


def rope(kind: str = "default", **more: float) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **more}}


STRETCHED = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)


def _llama(name: str, model: str = "LlamaForCausalLM", preset: dict[str, Any] | None = None, **config: Any) -> Case:
    return Case("llama", name, model, SMALL | config, preset)


def _mistral(name: str, preset: dict[str, Any] | None = None, **config: Any) -> Case:
    return Case("mistral", name, "MistralForCausalLM", SMALL | config, preset)


def _qwen2(name: str, model: str = "Qwen2ForCausalLM", preset: dict[str, Any] | None = None, **config: Any) -> Case:
    return Case("qwen2", name, model, SMALL | {"num_attention_heads": 3, "num_key_value_heads": 1} | {"head_dim": 10} | config, preset)


def _qwen3(name: str, preset: dict[str, Any] | None = None, **config: Any) -> Case:
    return Case("qwen3", name, "Qwen3ForCausalLM", SMALL | config, preset)


CASES: list[Case] = [
    _llama("untied, grouped queries, narrow heads"),
    _llama("tied, a padding row", preset=PRESET, **TIED, pad_token_id=0),
    _llama("biases everywhere, one key and value", attention_bias=True, mlp_bias=True, num_key_value_heads=1),
    _llama("linear scaling, tanh GELU", **rope("linear", factor=3.0), hidden_act="gelu_pytorch_tanh"),
    _llama("llama3 scaling, base 500", **(STRETCHED | {"rope_parameters": STRETCHED["rope_parameters"] | {"rope_theta": 500.0}})),
    _llama("classifier", "LlamaForSequenceClassification", num_labels=5, pad_token_id=0),
    _llama("no head", "LlamaModel", num_key_value_heads=None, head_dim=None, num_attention_heads=5, preset=PRESET | {"kv_heads": 1}),
    _mistral("a window of 4", preset=PRESET | {"window": 5}, sliding_window=4),
    _mistral("no window, tied, heads of 4 x 4 in 30", sliding_window=None, num_attention_heads=4, num_key_value_heads=2, **TIED),
    _qwen2("tied, heads of 10", preset=PRESET, **TIED),
    _qwen2("windows from layer 1 on", use_sliding_window=True, sliding_window=5, max_window_layers=1),
    _qwen2("windows by layer types", use_sliding_window=True, sliding_window=3, layer_types=LATE[::-1]),
    _qwen2("heads that do not divide the width", num_attention_heads=4, num_key_value_heads=2, head_dim=6),
    _qwen2("classifier", "Qwen2ForSequenceClassification", num_labels=3, pad_token_id=4),
    _qwen3("tied, a padding row", preset=PRESET | {"kv_heads": 1}, **TIED, pad_token_id=3),
    _qwen3("untied, biases, heads that do not divide the width", attention_bias=True, num_attention_heads=4, num_key_value_heads=2),
    _qwen3("windows by layer types, llama3 scaling", use_sliding_window=True, sliding_window=4, layer_types=LATE, **STRETCHED),
]
