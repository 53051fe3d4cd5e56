"""BART, in the layout Bart: the first Transformer's shape with learned positions, a norm behind the embeddings, and GELU.

    noised ids ─→ embedding + learned positions ─→ norm ─→ encoder ─→ memory
    text ids   ─→ the same embedding + positions of its own ─→ norm ─→ decoder ─→ the same embedding, + a fixed bias ─→ scores

Of ``BartForSequenceClassification`` (classify) the last state of the decoder goes through a dense layer and tanh to the labels. Position 0
stands in row 2 of a position table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from norma.nn.config import ModelConfig
from norma.nn.families import marian
from norma.nn.families.base import Family, parts
from norma.nn.names import Row

STRUCTURE: Mapping[str, Any] = {**marian.POST, "positions": "learned", "position_offset": 2, "embedding_norm": True, "pooler": True}


def bart(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 1024,
    encoder_layers: int | None = None,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
    pad_id: int | None = None,
) -> ModelConfig:
    """BART (Lewis et al., 1910.13461, section 2.1).

    The standard sequence-to-sequence Transformer, ReLU replaced by GELU, weights from N(0, 0.02); 6 layers in each stack of the base
    model, 12 in the large one. Learned positions, a norm behind the embeddings of both stacks, dropout 0.1 and unscaled embeddings are
    those of its code (fairseq, models/bart, bart_large). The layout has a fixed bias on the scores.

    Args:
        encoder_layers: blocks of the encoder; ``layers`` when None.
        pad_id: the token that fills up short rows.
    """
    heads = attention_heads or width // head_size
    return ModelConfig(
        family="bart",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        encoder_layers=encoder_layers or layers,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        feed_forward_width=feed_forward_width or 4 * width,
        max_positions=max_positions,
        activation="gelu",
        dropout=0.1,
        initialisation="normal",
        pad_id=pad_id,
        **STRUCTURE,
    )


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**STRUCTURE, **marian.read_post_norm(values)}


def _write(config: ModelConfig) -> dict[str, Any]:
    return marian.write_post_norm(config, "Bart", STRUCTURE)


def _rows(config: ModelConfig) -> Sequence[Row]:
    rows = list(marian.post_norm_rows(config))
    for stack in ("encoder", "decoder"):
        rows.append(Row(f"{stack}.position_embedding.weight", f"{marian.prefix(config)}{stack}.embed_positions.weight"))
        rows += parts(f"{stack}.embedding_norm", f"{marian.prefix(config)}{stack}.layernorm_embedding")
    if config.head == "classify":
        rows += marian.labels_rows()
    return rows


FAMILIES: tuple[Family, ...] = (
    Family(
        name="bart",
        model_type="bart",
        architectures={"lm": "BartForConditionalGeneration", "classify": "BartForSequenceClassification", "none": "BartModel"},
        preset=bart,
        sizes={  # section 2.1; widths, vocabulary and the padding token: the released models
            "base": {"vocab_size": 50265, "width": 768, "layers": 6, "pad_id": 1},
            "large": {"vocab_size": 50265, "width": 1024, "layers": 12, "pad_id": 1},
        },
        keys=marian.KEYS,
        rows=_rows,
        read=_read,
        write=_write,
        fixed={**marian.FIXED, "normalize_embedding": True, "static_position_embeddings": False},
        defaults={**marian.DEFAULTS, "vocab_size": 50265},
        ignored=("*encoder.version", "*decoder.version"),
        copies=marian.post_norm_copies,
        pads=True,
        start="eos",
    ),
)
