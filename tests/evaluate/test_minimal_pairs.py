"""Nats of sentences against slow loops, one token at a time; ties; what cannot be read; a model that has learnt the rule is right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from norma.base.errors import NormaError
from norma.evaluate.minimal_pairs import accuracy, read_pairs, sentence_nats, ways_of
from norma.lm import LanguageModel
from norma.nn import Mask, Transformer, preset
from norma.text.tokenizer import Tokenizer, train_tokenizer
from norma.text.words import WORD, flags_of

TEXTS = ["the cats are unbelievable", "a dog is barking", "the cat are unbelievable indeed"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 3, 275, ["masked"])  # so few merges that a word has several tokens


def model_of(family: str, tokenizer: Tokenizer) -> LanguageModel:
    config = preset(family, vocab_size=len(tokenizer), width=32, layers=2, head_size=16, max_positions=64)
    network = Transformer(config).initialise(torch.Generator().manual_seed(3)).eval()
    with torch.no_grad():  # as initialised all sentences cost nearly the same
        for parameter in network.parameters():
            parameter *= 3.0
    return LanguageModel(network, tokenizer, name=family)


def test_from_the_left_by_a_loop(tokenizer: Tokenizer) -> None:
    model = model_of("llama", tokenizer)
    found = sentence_nats(model, TEXTS, "left")
    for text, nats in zip(TEXTS, found, strict=True):
        ids = [tokenizer.bos_id, *tokenizer.encode(text)]
        logp = model.logits(torch.tensor([ids])).log_softmax(-1)[0]
        assert nats == pytest.approx(-sum(float(logp[t - 1, ids[t]]) for t in range(1, len(ids))), rel=1e-4)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_from_both_sides_by_a_loop(family: str, tokenizer: Tokenizer) -> None:
    """One row for each token, its word hidden from it on; a decoder reads token t off place t - 1."""
    model, mask = model_of(family, tokenizer), tokenizer.objective_tokens("masked")[0]
    found = sentence_nats(model, TEXTS, "both")
    for text, nats in zip(TEXTS, found, strict=True):
        encoding = tokenizer.backend.encode(text, add_special_tokens=False)
        begins = [bool(flag & WORD) for flag in flags_of(text, np.array([end for _, end in encoding.offsets]))]
        assert not all(begins), "a word has several tokens"
        whole, expected = [tokenizer.bos_id, *encoding.ids, tokenizer.eos_id], 0.0
        for t in range(1, len(whole) - 1):
            read, k = list(whole), t
            while k == t or (k < len(whole) - 1 and not begins[k - 1]):
                read[k] = mask
                k += 1
            hidden = model.transformer.hidden(torch.tensor([read]), Mask(causal=False))
            scores = torch.nn.functional.linear(model.transformer.features(hidden), model.transformer.head_weight())
            bias = model.transformer.head_bias
            logp = (scores if bias is None else scores + bias).log_softmax(-1)[0]
            expected -= float(logp[t - (family == "llama"), whole[t]].detach())
        assert nats == pytest.approx(expected, rel=1e-4)


def test_two_stacks() -> None:
    """T5: its sentinel, then the token. BART: the text that was there, from the left, its encoder having seen the rest."""
    tokenizer = train_tokenizer(TEXTS * 3, 370, ["masked", "spans"])
    sentinel, mask = tokenizer.objective_tokens("spans")[0], tokenizer.objective_tokens("masked")[0]
    text = "a dog"
    ids = tokenizer.encode(text)
    assert len(ids) >= 2
    encoding = tokenizer.backend.encode(text, add_special_tokens=False)
    begins = [bool(flag & WORD) for flag in flags_of(text, np.array([end for _, end in encoding.offsets]))]
    whole = [tokenizer.bos_id, *ids, tokenizer.eos_id]
    for family, mark in (("t5", sentinel), ("bart", mask)):
        model, expected = model_of(family, tokenizer), 0.0
        for t in range(1, len(whole) - 1):
            end = t + 1
            while end < len(whole) - 1 and not begins[end - 1]:
                end += 1
            source = [*whole[:t], mark, *whole[end:]]
            written = [tokenizer.pad_id, sentinel] if family == "t5" else [tokenizer.eos_id, *whole[:t]]
            logp = model.logits(torch.tensor([source]), decoder_ids=torch.tensor([written])).log_softmax(-1)[0]
            expected -= float(logp[-1, whole[t]].detach())
        assert sentence_nats(model, [text], "both")[0] == pytest.approx(expected, rel=1e-3)


def test_who_can_do_what(tokenizer: Tokenizer) -> None:
    assert ways_of(model_of("llama", tokenizer)) == ["left"]
    assert ways_of(model_of("bert", tokenizer)) == ["both"]
    with pytest.raises(NormaError, match="from the left"):
        sentence_nats(model_of("bert", tokenizer), TEXTS, "left")


def test_ties_are_half_right() -> None:
    assert accuracy(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 1.0])).tolist() == [1.0, 0.5, 0.0]


def test_reading_pairs(tmp_path: Path) -> None:
    rows = [{"good": f"good {i}", "bad": f"bad {i}", "uid": f"u{i % 2}", "field": "syntax"} for i in range(10)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read_pairs(path)) == 10
    some = read_pairs(path, count=2, seed=5)
    assert [p.phenomenon for p in some] == ["u0", "u0", "u1", "u1"]
    assert some == read_pairs(path, count=2, seed=5)
    path.write_text('{"good": "one"}\n')
    with pytest.raises(NormaError, match="no minimal pair"):
        read_pairs(path)
