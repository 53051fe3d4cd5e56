"""Switch: experts in some layers and in all, capacities that are reached and that are not.

Padding takes up an expert's capacity, in the layout as in Norma; so where capacity is reached, padding on the left moves real tokens out
and nothing can be said of it.
"""

from __future__ import annotations

from typing import Any

from norma.bench.parity import Case

SIZES: dict[str, Any] = {
    "vocab_size": 59,
    "d_model": 33,
    "d_kv": 7,
    "num_heads": 3,
    "d_ff": 46,
    "num_layers": 4,
    "num_decoder_layers": 2,
    "num_sparse_encoder_layers": 2,
    "num_sparse_decoder_layers": 1,
    "num_experts": 5,
    "expert_capacity": 64,
    "decoder_start_token_id": 0,
    "router_jitter_noise": 0.0,
}


def _case(name: str, model: str = "SwitchTransformersForConditionalGeneration", config: dict[str, Any] | None = None, **more: Any) -> Case:
    return Case("switch", name, model, {**SIZES, **(config or {})}, **more)


CASES: list[Case] = [
    _case(
        "every second layer, nothing dropped",
        preset={"vocab_size": 47, "width": 24, "layers": 2, "encoder_layers": 3, "head_size": 5, "attention_heads": 3, "experts": 3},
        masked=("left", "right"),
    ),
    _case("capacity 2", config={"expert_capacity": 2}, sides=("right",), masked=("right",)),
    _case(
        "every layer, GELU",
        config={"num_sparse_encoder_layers": 4, "num_sparse_decoder_layers": 2, "dense_act_fn": "gelu"},
        masked=("left", "right"),
    ),
    _case(
        "every third layer of 5 and 4",
        config={"num_layers": 5, "num_decoder_layers": 4, "encoder_sparse_step": 3, "decoder_sparse_step": 3},
    ),
    _case("no head", "SwitchTransformersModel"),
]
