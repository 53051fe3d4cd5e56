"""GPT-NeoX and Pythia."""

from __future__ import annotations

from typing import Any

from norma.bench.parity import Case

_SMALL: dict[str, Any] = {
    "vocab_size": 43,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 70,
    "max_position_embeddings": 21,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_PRESET: dict[str, Any] = {"vocab_size": 41, "width": 72, "layers": 2, "head_size": 24, "max_positions": 19}

CASES: list[Case] = [
    Case("gpt-neox", "parallel, a quarter rotary", "GPTNeoXForCausalLM", _SMALL, preset=_PRESET),
    Case(
        "gpt-neox",
        "serial, half rotary, tied",
        "GPTNeoXForCausalLM",
        {
            **_SMALL,
            "use_parallel_residual": False,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 300.0, "partial_rotary_factor": 0.5},
        },
        preset={**_PRESET, "parallel": False},
    ),
    Case("gpt-neox", "tanh GELU as in 20B", "GPTNeoXForCausalLM", {**_SMALL, "attention_bias": False, "hidden_act": "gelu_fast"}),
    Case(
        "gpt-neox",
        "stretched rotary positions",
        "GPTNeoXForCausalLM",
        {**_SMALL, "rope_parameters": {"rope_type": "linear", "factor": 3.0, "rope_theta": 500.0, "partial_rotary_factor": 1.0}},
    ),
    Case("gpt-neox", "classifier", "GPTNeoXForSequenceClassification", {**_SMALL, "num_labels": 3, "pad_token_id": 0}),
    Case("gpt-neox", "no head", "GPTNeoXModel", _SMALL),
]
