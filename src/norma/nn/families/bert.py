"""BERT and RoBERTa, and the layouts Bert and Roberta.

    token + position + segment ─→ norm ─→ blocks (bidirectional, a norm after each residual) ─→ hidden states
    hidden states ─→ dense, GELU, norm ─→ · embedding + bias ─→ which token was here           (lm)
    first hidden state ─→ pooler ─→ next_sentence | classifier                                 (pretraining | classify)
    hidden states ─→ classifier                                                                (tokens, span)

RoBERTa has BERT's blocks. It reads one segment, predicts tokens only, and counts positions from ``pad_token_id + 1``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig
from norma.nn.families.base import Family, head_size_of, must_hold, must_split_evenly, parts, read_activation, write_activation
from norma.nn.names import Row, Transform

STRUCTURE: Mapping[str, Any] = {
    "causal": False,
    "norm": "layer",
    "norm_bias": True,
    "norm_placement": "post",
    "embedding_norm": True,
    "positions": "learned",
    "attention_bias": True,
    "attention_output_bias": True,
    "gated": False,
    "feed_forward_bias": True,
    "head_bias": "learned",
    "head_transform": True,
    "pooler": True,
}
"""What both have."""


def bert(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
    segments: int = 2,
    pad_id: int | None = None,
) -> ModelConfig:
    """BERT (Devlin et al., 1810.04805).

    A bidirectional encoder of the original Transformer's blocks (section 3), feed-forward 4 x width (section 3, footnote 3), GELU, learned
    positions up to 512, dropout 0.1 (appendix A.2); token, segment and position embeddings are added (section 3, figure 2). Trained to
    fill in masked tokens and to tell whether the second segment follows the first (section 3.1): the head is ``pretraining``. The norm
    after the embeddings, the pooler, the transform before the token scores, eps 1e-12 and truncated normal initialisation are those of
    the published code (google-research/bert, modeling.py, run_pretraining.py). ``kv_heads`` other than None cannot be written.
    """
    heads = attention_heads or width // head_size
    return ModelConfig(
        family="bert",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        feed_forward_width=feed_forward_width or 4 * width,
        max_positions=max_positions,
        segments=segments,
        pad_id=pad_id,
        norm_eps=1e-12,
        activation="gelu",
        head="pretraining",
        dropout=0.1,
        initialisation="bert",
        **STRUCTURE,
    )


def roberta(
    *,
    vocab_size: int,
    width: int,
    layers: int,
    head_size: int = 64,
    kv_heads: int | None = None,
    max_positions: int = 512,
    attention_heads: int | None = None,
    feed_forward_width: int | None = None,
    segments: int = 1,
    pad_id: int = 1,
) -> ModelConfig:
    """RoBERTa (Liu et al., 1907.11692): BERT's architecture and sizes (section 4), trained without next sentences (section 4.2).

    So there is one segment and the head is ``lm``. Eps 1e-5, normal initialisation and the ``pad_id + 1`` unused rows in front of
    position 0 are those of the published code (fairseq, RoBERTa and LearnedPositionalEmbedding); the layout needs ``pad_id`` to be
    the tokenizer's. ``kv_heads`` other than None cannot be written.
    """
    heads = attention_heads or width // head_size
    return ModelConfig(
        family="roberta",
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        attention_heads=heads,
        kv_heads=kv_heads or heads,
        head_size=head_size,
        feed_forward_width=feed_forward_width or 4 * width,
        max_positions=max_positions,
        segments=segments,
        pad_id=pad_id,
        position_offset=pad_id + 1,
        norm_eps=1e-5,
        activation="gelu",
        dropout=0.1,
        initialisation="normal",
        **STRUCTURE,
    )


# ── config.json ──
def _heads(values: Mapping[str, Any]) -> dict[str, Any]:
    heads = values["num_attention_heads"]
    return {"kv_heads": heads, "head_size": head_size_of(values["hidden_size"], heads)}


def _read_bert(values: Mapping[str, Any]) -> dict[str, Any]:
    pad = {} if "pad_token_id" in values else {"pad_id": 0}  # the layout's reader assumes 0
    return {**STRUCTURE, **_heads(values), **pad, "activation": read_activation(values["hidden_act"])}


def _write_bert(config: ModelConfig) -> dict[str, Any]:
    must_hold(config, "Bert", STRUCTURE, free=("segments",))
    must_split_evenly(config, "Bert")
    return {"hidden_act": write_activation(config.activation), **_dropout(config)}


def _read_roberta(values: Mapping[str, Any]) -> dict[str, Any]:
    pad = values.get("pad_token_id", 1)
    if pad is None:
        raise NormaError("pad_token_id = None is not supported for roberta", mend="Positions are counted from it: set it")
    offset = pad + 1
    return {
        **STRUCTURE,
        **_heads(values),
        "pad_id": pad,
        "position_offset": offset,
        "max_positions": values["max_position_embeddings"] - offset,
        "activation": "gelu",
    }


def _write_roberta(config: ModelConfig) -> dict[str, Any]:
    must_hold(config, "Roberta", STRUCTURE, free=("segments", "position_offset"))
    must_split_evenly(config, "Roberta")
    if config.activation != "gelu":
        raise NormaError(f"Roberta cannot hold activation = '{config.activation}'", where="roberta", mend="It has 'gelu'")
    pad = config.position_offset - 1
    if pad < 0 or config.pad_id not in (None, pad):
        raise NormaError(
            f"Roberta cannot hold position_offset = {config.position_offset} with pad_id = {config.pad_id}",
            where="roberta",
            mend="position_offset must be pad_id + 1",
        )
    return {"max_position_embeddings": config.max_positions + config.position_offset, "pad_token_id": pad, **_dropout(config)}


def _dropout(config: ModelConfig) -> dict[str, Any]:
    return {"hidden_dropout_prob": config.dropout, "attention_probs_dropout_prob": 0.0}


# ── names ──
def _head(config: ModelConfig) -> bool:
    return config.head in ("lm", "pretraining")


def _body(config: ModelConfig, prefix: str) -> Iterator[Row]:
    """Everything below the heads; base models have no prefix."""
    begin = "" if config.head == "none" else prefix
    block, theirs = "encoder.blocks.{i}", f"{begin}encoder.layer.{{i}}"
    yield Row("embedding.weight", f"{begin}embeddings.word_embeddings.weight")
    yield Row("encoder.position_embedding.weight", f"{begin}embeddings.position_embeddings.weight")
    yield Row("encoder.segment_embedding.weight", f"{begin}embeddings.token_type_embeddings.weight")
    yield from parts("encoder.embedding_norm", f"{begin}embeddings.LayerNorm")
    for name in ("query", "key", "value"):
        yield from parts(f"{block}.attention.{name}", f"{theirs}.attention.self.{name}")
    yield from parts(f"{block}.attention.output", f"{theirs}.attention.output.dense")
    yield from parts(f"{block}.attention_norm", f"{theirs}.attention.output.LayerNorm")
    yield from parts(f"{block}.feed_forward.up", f"{theirs}.intermediate.dense")
    yield from parts(f"{block}.feed_forward.down", f"{theirs}.output.dense")
    yield from parts(f"{block}.feed_forward_norm", f"{theirs}.output.LayerNorm")


_twice = Transform(lambda config, ours: [ours[0], ours[0].clone()], lambda config, theirs: [theirs[0]])
"""One bias ↔ the two that an untied layout keeps, of which it uses the first."""


def _token_scores(config: ModelConfig, head: str) -> Iterator[Row]:
    """The bias has two names. Where embeddings are tied so are they; where not, ``decoder.bias`` is added and the other is stored."""
    if config.tie_embeddings:
        yield Row("head_bias", f"{head}.bias")
    else:
        yield Row("head.weight", f"{head}.decoder.weight")
        yield Row("head_bias", (f"{head}.decoder.bias", f"{head}.bias"), _twice)


def _tied(config: ModelConfig, head: str, embedding: str) -> dict[str, str]:
    """Second names of what the token scores share."""
    if not (_head(config) and config.tie_embeddings):
        return {}
    return {f"{head}.decoder.weight": embedding, f"{head}.decoder.bias": f"{head}.bias"}


def _bert_rows(config: ModelConfig) -> list[Row]:
    rows = list(_body(config, "bert."))
    if _head(config):
        rows += parts("head_transform", "cls.predictions.transform.dense")
        rows += parts("head_norm", "cls.predictions.transform.LayerNorm")
        rows += _token_scores(config, "cls.predictions")
    if config.head in ("pretraining", "classify", "none"):
        rows += parts("pooler", "pooler.dense" if config.head == "none" else "bert.pooler.dense")
    if config.head == "pretraining":
        rows += parts("next_sentence", "cls.seq_relationship")
    if config.head in ("classify", "tokens", "span"):
        rows += parts("classifier", "qa_outputs" if config.head == "span" else "classifier")
    return rows


def _bert_copies(config: ModelConfig) -> dict[str, str]:
    """With the names that norms had in TensorFlow, which the checkpoints of the paper's authors still have."""
    theirs = [name for row in _bert_rows(config) for _, names, _ in row.expand(config) for name in names]
    norms = [name.rpartition(".")[0] for name in theirs if name.endswith("LayerNorm.weight")]
    return {
        **_tied(config, "cls.predictions", "bert.embeddings.word_embeddings.weight"),
        **{f"{norm}.gamma": f"{norm}.weight" for norm in norms},
        **{f"{norm}.beta": f"{norm}.bias" for norm in norms},
    }


def _roberta_rows(config: ModelConfig) -> list[Row]:
    rows = list(_body(config, "roberta."))
    if _head(config):
        rows += parts("head_transform", "lm_head.dense")
        rows += parts("head_norm", "lm_head.layer_norm")
        rows += _token_scores(config, "lm_head")
    elif config.head == "none":
        rows += parts("pooler", "pooler.dense")
    elif config.head == "classify":  # the layout's classifier is a pooler and a linear layer
        rows += parts("pooler", "classifier.dense")
        rows += parts("classifier", "classifier.out_proj")
    else:
        rows += parts("classifier", "qa_outputs" if config.head == "span" else "classifier")
    return rows


# ── the families ──
def _size(layers: int, width: int, vocab_size: int = 30522, **more: Any) -> dict[str, Any]:
    return {"vocab_size": vocab_size, "width": width, "layers": layers, "pad_id": 0, **more}


_KEYS = {
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "attention_heads": "num_attention_heads",
    "feed_forward_width": "intermediate_size",
    "segments": "type_vocab_size",
    "norm_eps": "layer_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
    "initializer_range": "initializer_range",
}
_DEFAULTS = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
}
_FIXED = {"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute"}

FAMILIES: tuple[Family, ...] = (
    Family(
        name="bert",
        model_type="bert",
        architectures={
            "pretraining": "BertForPreTraining",
            "lm": "BertForMaskedLM",
            "classify": "BertForSequenceClassification",
            "tokens": "BertForTokenClassification",
            "span": "BertForQuestionAnswering",
            "none": "BertModel",
        },
        preset=bert,
        sizes={
            "base": _size(12, 768),  # 1810.04805, section 3; lower case
            "large": _size(24, 1024),
            "base-cased": _size(12, 768, 28996),
            "large-cased": _size(24, 1024, 28996),
            "base-chinese": _size(12, 768, 21128),
            "tiny": _size(2, 128),  # from here on Turc et al., 1908.08962, table 1
            "mini": _size(4, 256),
            "small": _size(4, 512),
            "medium": _size(8, 512),
        },
        keys={**_KEYS, "max_positions": "max_position_embeddings"},
        rows=_bert_rows,
        read=_read_bert,
        write=_write_bert,
        fixed=_FIXED,
        defaults={**_DEFAULTS, "vocab_size": 30522, "hidden_act": "gelu"},
        # Published BertForMaskedLM folders hold the whole pretrained model: what the class has no place for is left out, as there.
        ignored=("*position_ids", "bert.pooler.*", "cls.seq_relationship.*"),
        copies=_bert_copies,
        pads=True,
    ),
    Family(
        name="roberta",
        model_type="roberta",
        architectures={
            "lm": "RobertaForMaskedLM",
            "classify": "RobertaForSequenceClassification",
            "tokens": "RobertaForTokenClassification",
            "span": "RobertaForQuestionAnswering",
            "none": "RobertaModel",
        },
        preset=roberta,
        sizes={
            "base": _size(12, 768, 50265, pad_id=1),  # 1907.11692, section 4; byte-level vocabulary of section 4.4
            "large": _size(24, 1024, 50265, pad_id=1),
        },
        keys=_KEYS,
        rows=_roberta_rows,
        read=_read_roberta,
        write=_write_roberta,
        fixed={**_FIXED, "hidden_act": "gelu"},
        defaults={**_DEFAULTS, "vocab_size": 50265, "hidden_act": "gelu"},
        ignored=("*position_ids", "roberta.pooler.*"),
        copies=lambda config: _tied(config, "lm_head", "roberta.embeddings.word_embeddings.weight"),
        pads=True,
    ),
)
