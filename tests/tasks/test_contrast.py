"""Embeddings learnt in micro-batches: the gradient of the whole batch, dropout included; partners come together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from norma.base.progress import Silent
from norma.lm import LanguageModel
from norma.lm.embedding import embed, pooled, token_rows
from norma.nn import Transformer
from norma.objectives.contrastive import info_nce
from norma.tasks.contrast import ContrastiveTraining, Pair, retrieved
from norma.train import TrainOptions, train

FIRST = [f"What does entry {i} do? " + "It is long. " * (i % 3) for i in range(6)]
SECOND = [f"entry {i} waits {i} seconds" for i in range(6)]


def pairs(model: LanguageModel) -> list[Pair]:
    return [Pair(a, b) for a, b in zip(token_rows(model, FIRST), token_rows(model, SECOND), strict=True)]


def test_the_gradient_is_that_of_the_whole_batch(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(seed=3)
    training = ContrastiveTraining(pairs(model), rows=6, seed=0, dtype=torch.float32, temperature=0.3, micro_tokens=64)
    network, chosen = model.transformer, training._step(0)
    direct = info_nce(
        pooled(network, [p.first for p in chosen]), pooled(network, [p.second for p in chosen]), temperature=0.3, symmetric=True
    )
    expected = torch.autograd.grad(direct.loss / 6, list(network.parameters()))
    parts = list(training.losses(network, 0))
    for loss, _ in parts:
        loss.backward()  # type: ignore[no-untyped-call]
    assert len(parts) > 2 and sum(n.get("loss", 0.0) for _, n in parts) == pytest.approx(float(direct.loss.detach()) / 6, rel=1e-5)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        assert parameter.grad is not None and torch.allclose(parameter.grad, gradient, atol=1e-5)


def test_the_second_reading_drops_the_same(make_model: Callable[..., LanguageModel]) -> None:
    """With dropout the surrogate's value at step 0 is vector · gradient of the first reading: their sum over parts is fixed by it."""
    model = make_model(seed=3)
    network = Transformer(replace(model.config, dropout=0.4))
    network.load_state_dict(model.transformer.state_dict())
    network.train()
    found = []
    for tokens in (4096, 4096):
        torch.manual_seed(5)
        training = ContrastiveTraining(pairs(model), rows=6, seed=0, dtype=torch.float32, temperature=0.3, micro_tokens=tokens)
        network.zero_grad()
        for loss, _ in training.losses(network, 0):
            loss.backward()  # type: ignore[no-untyped-call]
        found.append(network.embedding.weight.grad.clone())  # type: ignore[union-attr]
    assert torch.equal(found[0], found[1])
    torch.manual_seed(5)
    chosen = training._step(0)
    together = pooled(network, [p.first for p in chosen] + [p.second for p in chosen])  # one micro-batch, sorted by length below
    order = sorted(range(12), key=lambda i: len([*[p.first for p in chosen], *[p.second for p in chosen]][i]))
    torch.manual_seed(5)
    texts = [*[p.first for p in chosen], *[p.second for p in chosen]]
    by_length = pooled(network, [texts[i] for i in order])
    vectors = torch.zeros_like(together).index_copy(0, torch.tensor(order), by_length)
    network.zero_grad()
    (info_nce(vectors[:6], vectors[6:], temperature=0.3, symmetric=True).loss / 6).backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(network.embedding.weight.grad, found[0], atol=1e-5)  # type: ignore[arg-type]


def test_partners_are_found_after_learning(make_model: Callable[..., LanguageModel], tmp_path: Path) -> None:
    model = make_model(seed=4)
    training = ContrastiveTraining(pairs(model), rows=6, seed=0, dtype=torch.float32)
    before = retrieved(embed(model, FIRST), embed(model, SECOND))
    options = TrainOptions(optimiser="adamw", learning_rate=3e-3, warmup=0, schedule="constant")
    network = model.transformer
    train(network, lambda step: training.losses(network, step), steps=30, options=options, folder=tmp_path, progress=Silent())
    after = retrieved(embed(model, FIRST), embed(model, SECOND))
    assert after["recall_at_1"] == 1.0 > before["recall_at_1"]


def test_ranks_by_hand() -> None:
    """Row 0: its partner is nearest; row 1: one other is nearer: rank 2; row 2: rank 1. MRR (1 + .5 + 1) / 3."""
    similar = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.3], [0.0, 0.1, 0.7]])
    found = retrieved(torch.eye(3), similar.T, ranks=(1, 2))
    assert found["recall_at_1"] == pytest.approx(2 / 3) and found["recall_at_2"] == 1.0 and found["mrr"] == pytest.approx(2.5 / 3)
