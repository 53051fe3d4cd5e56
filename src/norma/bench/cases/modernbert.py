"""ModernBERT: every class that has a head of ours, and the settings of its configuration that change the computation."""

from __future__ import annotations

from typing import Any

from norma.bench.parity import Case

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 42,
    "num_hidden_layers": 5,
    "num_attention_heads": 3,
    "intermediate_size": 50,
    "max_position_embeddings": 29,
    "local_attention": 6,
    "pad_token_id": 3,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "cls_token_id": 0,
    "sep_token_id": 2,
}
BIASES: dict[str, Any] = {"attention_bias": True, "mlp_bias": True, "norm_bias": True, "classifier_bias": True}
PRESET: dict[str, Any] = {"vocab_size": 53, "width": 36, "layers": 4, "head_size": 12, "max_positions": 23, "local_attention": 5}
NO_BIAS: dict[str, Any] = {"decoder_bias": False, "hidden_activation": "silu", "classifier_activation": "silu"}
LAYERS: dict[str, Any] = {
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 70.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 9.0},
    },
    "local_attention": 9,
}


def _case(name: str, model: str, preset: dict[str, Any] | None = None, **config: Any) -> Case:
    return Case("modernbert", name, model, SIZES | config, preset=preset)


CASES: list[Case] = [
    _case("masked tokens, local and global layers", "ModernBertForMaskedLM", PRESET),
    _case("all biases", "ModernBertForMaskedLM", **BIASES),
    _case("untied, no bias at all, SiLU", "ModernBertForMaskedLM", tie_word_embeddings=False, **NO_BIAS),
    _case("layer types in no order, other bases, an odd window", "ModernBertForMaskedLM", **LAYERS),
    _case("every second layer global", "ModernBertForMaskedLM", global_attn_every_n_layers=2),
    _case("labels of texts by the first token", "ModernBertForSequenceClassification", num_labels=5, classifier_pooling="cls"),
    _case("labels of texts by the mean", "ModernBertForSequenceClassification", num_labels=5, classifier_pooling="mean", **BIASES),
    _case("labels of tokens", "ModernBertForTokenClassification", num_labels=5),
    _case("answer spans", "ModernBertForQuestionAnswering"),
    _case("no head", "ModernBertModel"),
]
