"""PaLM in Cohere's layout."""

from __future__ import annotations

from typing import Any

from norma.bench.parity import Case

_SMALL: dict[str, Any] = {
    "vocab_size": 43,
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 1,
    "intermediate_size": 70,
    "max_position_embeddings": 21,
    "logit_scale": 36**-0.5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_PRESET: dict[str, Any] = {"vocab_size": 41, "width": 48, "layers": 2, "head_size": 12, "max_positions": 19}

CASES: list[Case] = [
    Case("palm", "multi-query", "CohereForCausalLM", _SMALL, preset=_PRESET),
    Case(
        "palm",
        "grouped queries, heads wider than the model, untied",
        "CohereForCausalLM",
        {**_SMALL, "num_key_value_heads": 3, "head_dim": 10, "tie_word_embeddings": False},
        preset={**_PRESET, "attention_heads": 6},
    ),
    Case(
        "palm",
        "biases, a padding row, another theta",
        "CohereForCausalLM",
        {**_SMALL, "attention_bias": True, "pad_token_id": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 800.0}},
    ),
    Case("palm", "no head", "CohereModel", _SMALL),
]
