"""StarCoder2."""

from __future__ import annotations

from typing import Any

from norma.bench.cases.llama import SMALL, rope
from norma.bench.parity import Case

_PRESET: dict[str, Any] = {"vocab_size": 41, "width": 72, "layers": 2, "head_size": 12, "kv_heads": 3, "max_positions": 19}


def _case(name: str, model: str = "Starcoder2ForCausalLM", preset: dict[str, Any] | None = None, **config: Any) -> Case:
    return Case("starcoder2", name, model, SMALL | config, preset)


CASES: list[Case] = [
    _case("tied, grouped queries", tie_word_embeddings=True, preset=_PRESET),
    _case("untied, a window of 5", preset={**_PRESET, "window": 5}, sliding_window=5, **rope(rope_theta=500.0)),
    _case("no biases, a padding row, one key and value", use_bias=False, pad_token_id=0, num_key_value_heads=1),
    _case("classifier", "Starcoder2ForSequenceClassification", num_labels=3, pad_token_id=0),
    _case("no head", "Starcoder2Model"),
]
