"""The Transformer as it was first published, in the layout Marian; and what Marian and BART have in common.

    source ids ─→ embedding * sqrt(width) + sinusoids ─→ encoder ─→ memory
    target ids ─→ the same embedding + sinusoids ─→ decoder (attends to the memory) ─→ the same embedding, + a fixed bias ─→ scores

Norms stand after the residual additions; both stacks have as many heads and as wide a feed-forward. Sinusoids are not stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig
from norma.nn.families.base import Family, head_size_of, must_hold, must_split_evenly, parts, read_activation, write_activation
from norma.nn.names import Row, row_vector

POST: Mapping[str, Any] = {
    "norm": "layer",
    "norm_bias": True,
    "norm_placement": "post",
    "attention_bias": True,
    "attention_output_bias": True,
    "gated": False,
    "feed_forward_bias": True,
    "head_bias": "fixed",
}
"""What Marian and BART share."""

SINUSOIDAL: Mapping[str, Any] = {**POST, "positions": "sinusoidal"}


def transformer(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    encoder_layers: int | None = None,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
    dropout: float = 0.1,
    pad_id: int | None = None,
) -> ModelConfig:
    """The Transformer (Vaswani et al., "Attention is all you need", 1706.03762).

    Encoder and decoder of ``layers`` blocks each, LayerNorm(x + Sublayer(x)) (3.1); attention scaled by 1 / sqrt(head_size) (3.2.1);
    ReLU feed-forward of 4 x width with biases (3.3); one matrix for both embeddings and the head, multiplied by sqrt(width) where it
    embeds (3.4); sinusoidal positions (3.5), whose features the layout orders differently: all sines first; dropout 0.1 of embeddings
    and sublayer outputs (5.4). The layout has biases on the attention's projections and a fixed one on the scores, which the paper
    does not mention. Initialisation: see :func:`norma.nn.initialise.glorot`.

    Args:
        encoder_layers: blocks of the encoder; ``layers`` when None.
        pad_id: the token that fills up short rows.
    """
    heads = attention_heads or width // head_size
    return ModelConfig(
        family="transformer",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        encoder_layers=encoder_layers or layers,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        feed_forward_width=feed_forward_width or 4 * width,
        max_positions=max_positions,
        embedding_scale=width**0.5,
        activation="relu",
        dropout=dropout,
        initialisation="glorot",
        pad_id=pad_id,
        **SINUSOIDAL,
    )


def prefix(config: ModelConfig) -> str:
    """Base models have none."""
    return "" if config.head == "none" else "model."


def post_norm_rows(config: ModelConfig) -> Iterator[Row]:
    """The tensors that Marian and BART name alike: the embedding, both stacks' blocks, the bias of the scores."""
    begin = prefix(config)
    yield Row("embedding.weight", f"{begin}shared.weight")
    for stack in ("encoder", "decoder"):
        block, theirs = f"{stack}.blocks.{{i}}", f"{begin}{stack}.layers.{{i}}"
        attentions = {"attention": "self_attn", **({"cross": "encoder_attn"} if stack == "decoder" else {})}
        for ours, name in attentions.items():
            for part, projection in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("output", "out_proj")):
                yield from parts(f"{block}.{ours}.{part}", f"{theirs}.{name}.{projection}")
            yield from parts(f"{block}.{ours}_norm", f"{theirs}.{name}_layer_norm")
        yield from parts(f"{block}.feed_forward.up", f"{theirs}.fc1")
        yield from parts(f"{block}.feed_forward.down", f"{theirs}.fc2")
        yield from parts(f"{block}.feed_forward_norm", f"{theirs}.final_layer_norm")
    if config.head == "lm":
        yield Row("head_bias", "final_logits_bias", row_vector)


def labels_rows() -> Iterator[Row]:
    """What stands between a decoder's last state and the labels in T5's and BART's ``...ForSequenceClassification``."""
    yield from parts("pooler", "classification_head.dense")
    yield from parts("classifier", "classification_head.out_proj")


def post_norm_copies(config: ModelConfig) -> dict[str, str]:
    """Other names of the one embedding."""
    begin = prefix(config)
    names = [f"{begin}encoder.embed_tokens.weight", f"{begin}decoder.embed_tokens.weight"]
    return dict.fromkeys([*names, *(["lm_head.weight"] if config.head == "lm" else [])], f"{begin}shared.weight")


def read_post_norm(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that Marian and BART read alike. Raises NormaError where encoder and decoder differ in more than depth."""
    for what in ("attention_heads", "ffn_dim"):
        both_alike(values, f"encoder_{what}", f"decoder_{what}")
    heads = values["encoder_attention_heads"]
    return {
        "kv_heads": heads,
        "head_size": head_size_of(values["d_model"], heads),
        "activation": read_activation(values["activation_function"]),
        "embedding_scale": values["d_model"] ** 0.5 if values["scale_embedding"] else 1.0,
    }


def both_alike(values: Mapping[str, Any], one: str, other: str) -> None:
    """Raise NormaError when two keys of ``config.json`` that must agree do not."""
    if values[one] != values[other]:
        raise NormaError(
            f"{one} = {values[one]} beside {other} = {values[other]} is not supported", mend="Encoder and decoder must have the same"
        )


def must_have_encoder(config: ModelConfig, layout: str) -> None:
    """Raise NormaError for a model of one stack."""
    if config.kind != "encoder-decoder":
        raise NormaError(f"{layout} cannot hold encoder_layers = 0", where=config.family, mend="It has an encoder and a decoder")


def write_post_norm(config: ModelConfig, layout: str, structure: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that Marian and BART write alike. Raises NormaError for a config that they cannot hold."""
    must_hold(config, layout, structure, free=("encoder_layers", "embedding_scale"))
    must_split_evenly(config, layout)
    must_have_encoder(config, layout)
    if config.embedding_scale not in (1.0, config.width**0.5):
        raise NormaError(
            f"{layout} cannot hold embedding_scale = {config.embedding_scale}", where=config.family, mend="It has 1 or sqrt(width)"
        )
    for name, only in {"tie_embeddings": True, "norm_eps": 1e-5}.items():
        if getattr(config, name) != only:
            raise NormaError(f"{layout} cannot hold {name} = {getattr(config, name)}", where=config.family, mend=f"It has {only}")
    return {
        "decoder_attention_heads": config.attention_heads,
        "decoder_ffn_dim": config.feed_forward_width,
        "num_hidden_layers": config.encoder_layers,
        "activation_function": write_activation(config.activation),
        "scale_embedding": config.embedding_scale != 1.0,
        "dropout": config.dropout,
        **dict.fromkeys(("attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop"), 0.0),
    }


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    if values.get("decoder_vocab_size") is not None:
        both_alike(values, "vocab_size", "decoder_vocab_size")
    return {**SINUSOIDAL, **read_post_norm(values)}


def _write(config: ModelConfig) -> dict[str, Any]:
    return {**write_post_norm(config, "Marian", SINUSOIDAL), "decoder_vocab_size": config.vocab_size}


def _rows(config: ModelConfig) -> Sequence[Row]:
    return list(post_norm_rows(config))


KEYS: Mapping[str, str] = {
    "vocab_size": "vocab_size",
    "width": "d_model",
    "encoder_layers": "encoder_layers",
    "layers": "decoder_layers",
    "attention_heads": "encoder_attention_heads",
    "feed_forward_width": "encoder_ffn_dim",
    "max_positions": "max_position_embeddings",
    "initializer_range": "init_std",
}
DEFAULTS: Mapping[str, Any] = {
    "d_model": 1024,
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 16,
    "decoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "decoder_ffn_dim": 4096,
    "max_position_embeddings": 1024,
    "init_std": 0.02,
    "activation_function": "gelu",
    "scale_embedding": False,
}
"""Of MarianConfig and BartConfig both."""

FIXED: Mapping[str, Any] = {
    "is_encoder_decoder": True,
    "tie_word_embeddings": True,
    "normalize_before": False,  # these two: choices of older writers
    "add_final_layer_norm": False,
}

FAMILIES: tuple[Family, ...] = (
    Family(
        name="transformer",
        model_type="marian",
        architectures={"lm": "MarianMTModel"},  # MarianModel's files hold the sinusoids, which are no weights
        preset=transformer,
        sizes={  # table 3; vocabulary: section 5.1
            "base": {"vocab_size": 37000, "width": 512, "layers": 6},
            "big": {"vocab_size": 37000, "width": 1024, "layers": 6, "dropout": 0.3},
        },
        keys=KEYS,
        rows=_rows,
        read=_read,
        write=_write,
        fixed={**FIXED, "share_encoder_decoder_embeddings": True, "normalize_embedding": False, "static_position_embeddings": True},
        defaults={**DEFAULTS, "vocab_size": 58101},
        ignored=("*embed_positions.weight",),
        copies=post_norm_copies,
        pads=True,
        start="pad",
    ),
)
