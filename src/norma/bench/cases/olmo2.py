"""OLMo 2."""

from __future__ import annotations

from typing import Any

from norma.bench.cases.llama import PRESET, SMALL, rope
from norma.bench.parity import Case

_SMALL: dict[str, Any] = SMALL | {"hidden_size": 36, "head_dim": 6}


def _case(name: str, model: str = "Olmo2ForCausalLM", preset: dict[str, Any] | None = None, **config: Any) -> Case:
    return Case("olmo2", name, model, _SMALL | config, preset)


CASES: list[Case] = [
    _case("untied, grouped queries", preset=PRESET, **rope(rope_theta=500.0)),
    _case("tied, biases, a padding row", tie_word_embeddings=True, attention_bias=True, pad_token_id=0),
    _case("heads that do not divide the width", num_attention_heads=4, num_key_value_heads=2, head_dim=10),
    _case("no head", "Olmo2Model"),
]
