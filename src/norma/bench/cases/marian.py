"""The Transformer as Marian: heads of odd size, odd widths, scaled and unscaled embeddings, depths that differ."""

from __future__ import annotations

from typing import Any

from norma.bench.parity import Case

SIZES: dict[str, Any] = {
    "vocab_size": 59,
    "d_model": 33,  # odd: a sine more than cosines
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 46,
    "decoder_ffn_dim": 46,
    "max_position_embeddings": 31,
    "activation_function": "relu",
    "scale_embedding": True,
    "pad_token_id": 58,
    "eos_token_id": 0,
    "decoder_start_token_id": 58,
    "init_std": 0.1,
}


def _case(name: str, *, preset: dict[str, Any] | None = None, **config: Any) -> Case:
    return Case("transformer", name, "MarianMTModel", {**SIZES, **config}, preset=preset)


CASES: list[Case] = [
    _case("as in the paper", preset={"vocab_size": 47, "width": 36, "layers": 2, "encoder_layers": 1, "head_size": 12, "pad_id": 0}),
    _case("swish, padding token 3", activation_function="swish", pad_token_id=3, decoder_start_token_id=3),
    _case("unscaled, one head, even width", scale_embedding=False, d_model=34, encoder_attention_heads=1, decoder_attention_heads=1),
]
