"""Experts in training: the routers' losses are added and do not depend on micro-batches; biases move by what a step counted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from norma.base.ranks import ALONE
from norma.nn import Transformer, preset
from norma.nn.experts import ExpertFeedForward, row_losses
from norma.train.balance import RATE, balance, reset
from norma.train.examples import Examples, examples_loss

V, T = 40, 12


def sparse(seed: int = 0, **changes: Any) -> Transformer:
    config = preset("qwen3-moe", vocab_size=V, width=32, layers=2, head_size=16, max_positions=T, experts=4, per_token=1)
    assert config.experts is not None
    config = dataclasses.replace(config, experts=dataclasses.replace(config.experts, **changes))
    return Transformer(config).initialise(torch.Generator().manual_seed(seed)).train()


def rows(count: int, seed: int = 0) -> Examples:
    random = np.random.default_rng(seed)
    ids = random.integers(0, V, (count, T))
    documents = np.ones_like(ids)
    documents[-1, 7:] = 0
    targets = np.where(documents > 0, np.roll(ids, -1, axis=1), -100)
    return Examples(ids, targets, documents, np.broadcast_to(np.arange(T), ids.shape).copy())


def test_row_losses_by_a_slow_loop() -> None:
    model, examples = sparse(auxiliary_weight=0.5, z_weight=0.25), rows(3)
    found = examples_loss(model, examples, torch.float32)
    auxiliary, z = row_losses(model)
    expected = 0.0
    for layer in (m for m in model.modules() if isinstance(m, ExpertFeedForward)):
        assert layer.routing is not None
        routing = layer.routing
        for b in range(3):
            places = [b * T + t for t in range(T) if examples.documents[b, t] > 0]
            share, mean, squares = [0.0] * 4, [0.0] * 4, 0.0
            for n in places:
                share[int(routing.chosen_NK[n, 0])] += 1 / len(places)
                squares += float(routing.scores_NE[n].detach().exp().sum().log() ** 2) / len(places)
                for e in range(4):
                    mean[e] += float(routing.probabilities_NE[n, e].detach()) / len(places)
            expected += 0.5 * 4 * sum(f * p for f, p in zip(share, mean, strict=True)) + 0.25 * squares
    assert found.router is not None
    assert found.router.item() == pytest.approx(expected, rel=1e-5)
    assert auxiliary.shape == z.shape == (3,)
    model.eval()
    assert examples_loss(model, examples, torch.float32).router is None


def test_micro_batches_do_not_change_the_routers_gradient() -> None:
    model, examples = sparse(auxiliary_weight=1.0, z_weight=1.0), rows(4)

    def gradient(size: int) -> torch.Tensor:
        model.zero_grad()
        for start in range(0, 4, size):
            router = examples_loss(model, examples.part(start, start + size), torch.float32).router
            assert router is not None
            router.backward()
        first = next(m for m in model.modules() if isinstance(m, ExpertFeedForward))
        assert first.router.weight.grad is not None
        return first.router.weight.grad.clone()

    torch.testing.assert_close(gradient(1), gradient(4), rtol=1e-4, atol=1e-6)


def test_a_bias_moves_by_what_the_step_counted() -> None:
    model = sparse(balance_bias=True)
    layers = [m for m in model.modules() if isinstance(m, ExpertFeedForward)]
    reset(model)
    for part in (rows(2, 1), rows(3, 2)):
        examples_loss(model, part, torch.float32)
    for layer in layers:
        assert layer.tally is not None
        assert int(layer.tally.sum()) == 5 * T - 2 * (T - 7), "every token that is no padding chose once"
    tallies = [layer.tally.float() for layer in layers if layer.tally is not None]
    balance(model, ALONE)
    for layer, counts in zip(layers, tallies, strict=True):
        assert layer.balance is not None
        torch.testing.assert_close(layer.balance, RATE * torch.sign(counts.mean() - counts))
    reset(model)
    assert all(layer.tally is None for layer in layers)


@pytest.mark.parametrize("how", [{"auxiliary_weight": 0.05}, {"balance_bias": True, "auxiliary_weight": 0.0}])
def test_loads_become_even(how: dict[str, Any]) -> None:
    """A router that sends everything to one expert is brought to use all."""
    model = sparse(**how)
    with torch.no_grad():
        for layer in (m for m in model.modules() if isinstance(m, ExpertFeedForward)):
            layer.router.weight *= 0.2
            if layer.balance is not None:
                layer.balance[0] = 0.02  # a start that prefers one
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def busiest() -> float:
        examples_loss(model, rows(16, 99), torch.float32)
        layers = [m for m in model.modules() if isinstance(m, ExpertFeedForward) and m.routing is not None]
        return max(float(m.routing.chosen_NK.flatten().bincount(minlength=4).max()) / (16 * T) for m in layers if m.routing is not None)

    before = busiest()
    for step in range(120):
        reset(model)
        found = examples_loss(model, rows(8, step), torch.float32)
        assert found.router is not None
        (found.minimised / 90 + found.router / 8).backward()
        optimiser.step()
        optimiser.zero_grad()
        balance(model, ALONE)
    after = busiest()
    assert after < before
    assert after < 0.45
