"""Qwen3-MoE."""

from __future__ import annotations

from typing import Any

from norma.bench.cases.llama import PRESET, SMALL
from norma.bench.parity import Case

_EXPERTS: dict[str, Any] = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 21}


def _case(name: str, preset: dict[str, Any] | None = None, **config: Any) -> Case:
    return Case("qwen3-moe", name, "Qwen3MoeForCausalLM", SMALL | _EXPERTS | config, preset)


CASES: list[Case] = [
    _case("two of five experts", preset=PRESET | {"experts": 3, "per_token": 2, "expert_width": 17}),
    _case("weights sum to 1, tied, biases", norm_topk_prob=True, tie_word_embeddings=True, attention_bias=True),
    _case(
        "every second layer, one expert a token, a window",
        decoder_sparse_step=2,
        num_experts_per_tok=1,
        use_sliding_window=True,
        sliding_window=4,
    ),
    _case(
        "all experts, a padding row, heads that do not divide the width",
        num_experts_per_tok=5,
        pad_token_id=0,
        num_attention_heads=4,
        num_key_value_heads=2,
    ),
]
