"""Texts scored slice by slice: the numbers of one reading, and the beginning is known to who goes on behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from norma.generate.prefill import Prefill
from norma.generate.prefixes import BLOCK, Prefixes
from norma.generate.reading import Reader
from norma.generate.running import RunningBatch, Token
from norma.generate.scoring import SCORED, Scores, Told
from norma.lm import LanguageModel
from norma.nn import Experts, Transformer
from norma.nn.layers import working_weights

FP32 = torch.float32
Make = Callable[..., LanguageModel]


def score(model: LanguageModel, texts: Sequence[Sequence[int]], most: int, prefixes: Prefixes | None = None) -> tuple[list[Told], int]:
    """(what is told of each text, in how many pieces)"""
    with working_weights(model.transformer, FP32):
        scores, pieces = Scores(RunningBatch(model, FP32, prefixes), texts, 2), 1
        while (found := scores.go_on(most)) is None:
            pieces += 1
    return found, pieces


def texts_of(model: LanguageModel) -> list[list[int]]:
    rules = model.tokenizer.encode("Certainly: the entry does not say what `os.path.join` does. " * 15)
    return [rules, rules[:1], model.tokenizer.encode("What does"), rules[:8], rules[: SCORED + 1], rules[3:43]]


def check(model: LanguageModel, text: Sequence[int], told: Told) -> None:
    logits = model.logits(torch.tensor([list(text)]))[0].log_softmax(-1)
    assert told[0] is None and len(told) == len(text)
    for place, token in enumerate(told[1:], 1):
        assert isinstance(token, Token) and token.id == text[place]
        best = logits[place - 1].topk(2)
        assert token.logprob == pytest.approx(float(logits[place - 1, token.id]), abs=1e-4)
        assert [v for _, v in token.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert [i for i, _ in token.top] == best.indices.tolist()


@pytest.mark.parametrize("most", [8, 40, 4000])
def test_slices_change_no_number(make_model: Make, most: int) -> None:
    model = make_model(6, 0.2, max_positions=400)
    texts = texts_of(model)
    assert len(texts[0]) > 2 * SCORED
    found, pieces = score(model, texts, most)
    for text, told in zip(texts, found, strict=True):
        check(model, text, told)
    assert pieces > len(texts) if most < 4000 else pieces == len(texts)


def test_a_text_as_long_as_the_model_reads(make_model: Make) -> None:
    model = make_model(6, 0.2, max_positions=97)
    text = texts_of(model)[0][:97]
    [told], _ = score(model, [text], 32)
    check(model, text, told)


def test_experts_with_a_capacity_read_a_text_at_once(make_model: Make) -> None:
    plain = make_model(6, 0.2, max_positions=400)
    network, generator = Transformer(replace(plain.config, experts=Experts(4, 1, capacity=5))), torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2, generator=generator)
    model = LanguageModel(network.eval(), plain.tokenizer)
    text = texts_of(model)[5]
    [told], pieces = score(model, [text], 8)
    assert pieces == 1
    check(model, text, told)


def test_who_goes_on_behind_a_text_finds_it_read(make_model: Make) -> None:
    model = make_model(6, 0.2, max_positions=400)
    text, prefixes = texts_of(model)[0], Prefixes(2**24)
    first, _ = score(model, [text], 40, prefixes)
    assert prefixes.asked == 0 and prefixes.bytes > 0
    again, _ = score(model, [text], 40, prefixes)
    assert again == first, "what is known of a text does not make its numbers be left out"
    with working_weights(model.transformer, FP32):
        Prefill(Reader(model, FP32), text, prefixes).read(8)
    assert prefixes.found >= len(text) - 2 * BLOCK
