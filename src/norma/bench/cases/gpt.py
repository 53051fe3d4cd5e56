"""GPT and GPT-2."""

from __future__ import annotations

from typing import Any

from norma.bench.parity import Case

_IDS = {"bos_token_id": 1, "eos_token_id": 2}
_SMALL: dict[str, Any] = {"vocab_size": 43, "n_embd": 30, "n_layer": 3, "n_head": 3, "n_positions": 21, **_IDS}
_PRESET: dict[str, Any] = {"vocab_size": 41, "width": 36, "layers": 2, "head_size": 12, "max_positions": 19}

CASES: list[Case] = [
    Case("gpt", "tied", "OpenAIGPTLMHeadModel", _SMALL, preset=_PRESET),
    Case("gpt", "untied, silu", "OpenAIGPTLMHeadModel", {**_SMALL, "tie_word_embeddings": False, "afn": "silu", "layer_norm_epsilon": 0.1}),
    Case("gpt", "classifier", "OpenAIGPTForSequenceClassification", {**_SMALL, "num_labels": 3, "pad_token_id": 0}),
    Case("gpt", "no head", "OpenAIGPTModel", _SMALL),
    Case("gpt2", "tied", "GPT2LMHeadModel", _SMALL, preset=_PRESET),
    Case("gpt2", "untied, inner width of its own", "GPT2LMHeadModel", {**_SMALL, "tie_word_embeddings": False, "n_inner": 50}),
    Case("gpt2", "scores unscaled, exact GELU", "GPT2LMHeadModel", {**_SMALL, "scale_attn_weights": False, "activation_function": "gelu"}),
    Case("gpt2", "classifier", "GPT2ForSequenceClassification", {**_SMALL, "num_labels": 3, "pad_token_id": 0}),
    Case("gpt2", "no head", "GPT2Model", _SMALL),
]
