"""BERT and RoBERTa: every class that has a head of ours, odd sizes, one segment and several.

Untied heads are in tests/nn/test_bert_families.py: their layout stores a bias that it does not use, so files cannot come back bit-equal.
"""

from __future__ import annotations

from typing import Any

from norma.bench.parity import Case

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 42,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 50,
    "max_position_embeddings": 29,
}
LABELS: dict[str, Any] = {**SIZES, "num_labels": 5}
SEGMENTS: dict[str, Any] = {**SIZES, "hidden_act": "gelu_new", "type_vocab_size": 3}
NO_PAD: dict[str, Any] = {**SIZES, "pad_token_id": None, "num_attention_heads": 6, "hidden_act": "relu"}
ROBERTA: dict[str, Any] = {**SIZES, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}
PRESET: dict[str, Any] = {"vocab_size": 53, "width": 36, "layers": 2, "head_size": 12, "max_positions": 23}


def _bert(name: str, model: str, config: dict[str, Any] = SIZES, **more: Any) -> Case:
    return Case("bert", name, model, config, **more)


def _roberta(name: str, model: str, **more: Any) -> Case:
    config = {**ROBERTA, **more.pop("config", {})}
    return Case("roberta", name, model, config, reads_pad=False, **more)


CASES: list[Case] = [
    _bert("masked tokens and next sentence", "BertForPreTraining", preset=PRESET),
    _bert("masked tokens", "BertForMaskedLM"),
    _bert("tanh GELU, three segments", "BertForMaskedLM", SEGMENTS),
    _bert("no padding row, heads of 7, ReLU", "BertForMaskedLM", NO_PAD),
    _bert("labels of texts", "BertForSequenceClassification", LABELS),
    _bert("labels of tokens", "BertForTokenClassification", LABELS),
    _bert("answer spans", "BertForQuestionAnswering"),
    _bert("no head", "BertModel"),
    _roberta("masked tokens", "RobertaForMaskedLM", preset=PRESET),
    _roberta("padding token 4, two segments", "RobertaForMaskedLM", config={"pad_token_id": 4, "type_vocab_size": 2}),
    _roberta("labels of texts", "RobertaForSequenceClassification", config={"num_labels": 5}),
    _roberta("labels of tokens", "RobertaForTokenClassification", config={"num_labels": 5}),
    _roberta("answer spans", "RobertaForQuestionAnswering"),
    _roberta("no head", "RobertaModel"),
]
