"""Bits per byte against a plain loop, and KL against its definition."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from norma.evaluate.likelihood import bits_per_byte, kl_per_token, window_nats
from norma.lm import LanguageModel
from norma.train.scoring import Group


def test_bits_per_byte_is_the_loops(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(2)
    texts = ["What does `json.dumps` do?", "您好：12", "a"]
    nats = 0.0
    for text in texts:
        ids = [model.tokenizer.bos_id, *model.tokenizer.encode(text), model.tokenizer.eos_id]
        log_p = model.logits(torch.tensor([ids]))[0].double().log_softmax(-1)
        nats -= sum(float(log_p[i, t]) for i, t in enumerate(ids[1:]))
    assert bits_per_byte(model, texts, length=64) == pytest.approx(nats / math.log(2) / sum(len(t.encode()) for t in texts), rel=1e-5)


def test_a_model_that_knows_nothing_pays_log2_of_its_vocabulary(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(2)
    with torch.no_grad():
        model.transformer.embedding.weight.zero_()
    texts = ["What does `json.dumps` do?" * 9, "x"]
    tokens = sum(len(model.tokenizer.encode(t)) + 1 for t in texts)
    size = sum(map(len, texts))
    # Cut into pieces too: every token but BOS is paid for once.
    assert bits_per_byte(model, texts, length=16) == pytest.approx(tokens * math.log2(len(model.tokenizer)) / size, rel=1e-5)


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("count", [3, 8, 9, 10, 31])
def test_window_nats_are_the_loops(make_model: Callable[..., LanguageModel], count: int, stride: int) -> None:
    """A token at a time: it sees what its window holds before it, windows of 8 tokens that move on by the stride."""
    model, length = make_model(2), 8
    texts = ["What does `json.dumps` do? ", "您好：12 it says what it says and more"]
    while sum(len(ids) for ids in model.tokenizer.encode_batch(texts)) > count:
        texts = [text[:-1] for text in texts] if len(texts[0]) > 1 else [texts[0], texts[1][:-1]]
    stream = [i for text in texts for i in model.tokenizer.encode(text)]
    nats, first = 0.0, 0
    for at in range(1, len(stream)):
        while at > first + length:
            first += stride
        nats -= float(model.logits(torch.tensor([stream[first:at]]))[0, -1].double().log_softmax(-1)[stream[at]])
    assert window_nats(model, texts, length=length, stride=stride) == pytest.approx(nats / (len(stream) - 1), rel=1e-5)


def test_kl_on_the_models_own_samples_is_the_exact_one(make_model: Callable[..., LanguageModel]) -> None:
    model, other, prompt = make_model(1, 0.1), make_model(2, 0.1), [5, 6, 7]
    p, q = (m.logits(torch.tensor([prompt]))[0, -1].double().log_softmax(-1) for m in (model, other))
    exact = float((p.exp() * (p - q)).sum())
    drawn = torch.multinomial(p.exp(), 3000, replacement=True, generator=torch.Generator().manual_seed(0)).tolist()
    groups = [Group(prompt, [[t] for t in drawn[i : i + 60]]) for i in range(0, 3000, 60)]
    each = (q - p).expm1() - (q - p)
    error = float(each[drawn].std()) / 3000**0.5
    assert abs(kl_per_token(model, other, groups) - exact) < 4 * error and exact > 4 * error
