"""T5 and T5 1.1: heads whose size times their number is not the width, depths that differ, few buckets, gates."""

from __future__ import annotations

from typing import Any

from norma.bench.parity import Case

SIZES: dict[str, Any] = {
    "vocab_size": 59,
    "d_model": 33,
    "d_kv": 7,
    "num_heads": 3,
    "d_ff": 46,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "decoder_start_token_id": 0,
}
GATED: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
PRESET: dict[str, Any] = {"vocab_size": 47, "width": 24, "layers": 2, "encoder_layers": 1, "head_size": 5, "attention_heads": 3}


def _case(family: str, name: str, model: str = "T5ForConditionalGeneration", config: dict[str, Any] | None = None, **more: Any) -> Case:
    return Case(family, name, model, {**SIZES, **(config or {})}, masked=("left", "right"), **more)


CASES: list[Case] = [
    _case("t5", "as in the paper", preset=PRESET),
    _case("t5", "6 buckets up to 9 tokens", config={"relative_attention_num_buckets": 6, "relative_attention_max_distance": 9}),
    _case("t5", "GELU, an encoder deeper than the decoder", config={"feed_forward_proj": "gelu", "num_layers": 3, "num_decoder_layers": 1}),
    _case("t5", "untied", config={"tie_word_embeddings": False}, own_head=True),
    _case("t5", "no head", "T5Model"),
    _case("t5-v1.1", "as released", config=GATED, preset=PRESET, own_head=True),
    _case("t5-v1.1", "gated by SiLU", config={**GATED, "feed_forward_proj": "gated-silu"}, own_head=True),
    _case("t5-v1.1", "tied", config={"feed_forward_proj": "gated-gelu"}),
]
