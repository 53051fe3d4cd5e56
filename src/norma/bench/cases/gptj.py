"""GPT-J."""

from __future__ import annotations

from typing import Any

from norma.bench.parity import Case

_SMALL: dict[str, Any] = {"vocab_size": 43, "n_embd": 48, "n_layer": 3, "n_head": 3, "n_positions": 21, "rotary_dim": 6} | {
    "bos_token_id": 1,
    "eos_token_id": 2,
}

CASES: list[Case] = [
    Case(
        "gpt-j",
        "a part of each head rotary",
        "GPTJForCausalLM",
        _SMALL,
        preset={"vocab_size": 41, "width": 72, "layers": 2, "head_size": 24, "max_positions": 19},
    ),
    Case("gpt-j", "whole heads rotary, tied", "GPTJForCausalLM", {**_SMALL, "rotary_dim": 16, "n_inner": 70, "tie_word_embeddings": True}),
    Case("gpt-j", "classifier", "GPTJForSequenceClassification", {**_SMALL, "num_labels": 3, "pad_token_id": 0}),
    Case("gpt-j", "no head", "GPTJModel", _SMALL),
]
