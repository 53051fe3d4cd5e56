"""GPT-3 in GPT-Neo's layout."""

from __future__ import annotations

from typing import Any

from norma.bench.parity import Case

_SMALL: dict[str, Any] = {
    "vocab_size": 43,
    "hidden_size": 30,
    "num_layers": 4,
    "num_heads": 3,
    "max_position_embeddings": 21,
    "attention_types": [[["global", "local"], 2]],
    "window_size": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Head sizes whose root is a power of two: the scale goes into the queries and out again without losing a bit.
_PRESET: dict[str, Any] = {"vocab_size": 41, "width": 48, "layers": 2, "max_positions": 19, "window": 5}

CASES: list[Case] = [
    Case("gpt3", "dense and banded in turn", "GPTNeoForCausalLM", _SMALL, preset={**_PRESET, "head_size": 16}),
    Case(
        "gpt3",
        "three banded in a row, untied, inner width of its own",
        "GPTNeoForCausalLM",
        {**_SMALL, "attention_types": [[["global"], 1], [["local"], 3]], "tie_word_embeddings": False, "intermediate_size": 50},
        preset={**_PRESET, "width": 128, "head_size": 64},
    ),
    Case("gpt3", "all dense, relu", "GPTNeoForCausalLM", {**_SMALL, "attention_types": [[["global"], 4]], "activation_function": "relu"}),
    Case("gpt3", "classifier", "GPTNeoForSequenceClassification", {**_SMALL, "num_labels": 3, "pad_token_id": 0}),
    Case("gpt3", "no head", "GPTNeoModel", _SMALL),
]
