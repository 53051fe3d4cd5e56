"""BART: heads of odd size, scaled and unscaled embeddings, depths that differ."""

from __future__ import annotations

from typing import Any

from norma.bench.parity import Case

SIZES: dict[str, Any] = {
    "vocab_size": 59,
    "d_model": 33,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 46,
    "decoder_ffn_dim": 46,
    "max_position_embeddings": 31,
    "init_std": 0.1,
}


def _case(name: str, model: str = "BartForConditionalGeneration", *, preset: dict[str, Any] | None = None, **config: Any) -> Case:
    return Case("bart", name, model, {**SIZES, **config}, preset=preset)


CASES: list[Case] = [
    _case("as in the paper", preset={"vocab_size": 47, "width": 36, "layers": 2, "encoder_layers": 1, "head_size": 12, "pad_id": 1}),
    _case("scaled embeddings, tanh GELU, padding token 3", scale_embedding=True, activation_function="gelu_new", pad_token_id=3),
    _case("ReLU, an encoder deeper than the decoder", activation_function="relu", encoder_layers=3, decoder_layers=1),
    _case("no head", "BartModel"),
]
