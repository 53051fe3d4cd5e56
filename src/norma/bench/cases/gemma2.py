"""Gemma 2. Caps are low here, so that scores reach them."""

from __future__ import annotations

from typing import Any

from norma.bench.cases.llama import PRESET, SMALL
from norma.bench.parity import Case

_SMALL: dict[str, Any] = SMALL | {
    "sliding_window": 4,
    "query_pre_attn_scalar": 7,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 3.0,
}


def _case(name: str, model: str = "Gemma2ForCausalLM", preset: dict[str, Any] | None = None, **config: Any) -> Case:
    return Case("gemma2", name, model, _SMALL | config, preset)


CASES: list[Case] = [
    _case("windows in every other layer", preset=PRESET | {"window": 5, "query_scalar": 6}, pad_token_id=0),
    _case("untied, biases, one key and value", tie_word_embeddings=False, attention_bias=True, num_key_value_heads=1),
    _case(
        "no caps, windows by layer types",
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        layer_types=["full_attention", "full_attention", "sliding_attention"],
    ),
    _case("classifier", "Gemma2ForSequenceClassification", num_labels=3, pad_token_id=0),
    _case("no head", "Gemma2Model"),
]
