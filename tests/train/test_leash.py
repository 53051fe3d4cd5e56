"""The KL leash of fine-tuning: the loss by a loop, a leash to oneself costs nothing, and what it keeps."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from norma.base.progress import Silent
from norma.lm import LanguageModel
from norma.text.packing import IGNORE, Batches, Rows
from norma.train import TrainOptions, train
from norma.train.step import Leash, language_losses

Make = Callable[..., LanguageModel]
TEXTS = [[5, 6, 7, 8, 9], [9, 8, 7], [6, 6, 5, 9, 8, 7, 6]]
LEARNT = [[False, False, True, True, True], [False, True, True], [False] * 4 + [True] * 3]


def batches(size: int = 3) -> Batches:
    return Batches(Rows.build(zip(TEXTS, LEARNT, strict=True), 16), length=16, size=size, seed=0, pad=0)


def loop(model: LanguageModel, near: LanguageModel, weight: float) -> tuple[float, float]:
    """(the loss, KL a token) in doubles, text by text: mean over the learnt tokens of -log q + weight sum_v p (log p - log q)."""
    nats = kl = 0.0
    tokens = 0
    for ids, learnt in zip(TEXTS, LEARNT, strict=True):
        q = model.logits(torch.tensor([ids]))[0].double().log_softmax(-1).numpy()
        p = near.logits(torch.tensor([ids]))[0].double().log_softmax(-1).numpy()
        for t in range(1, len(ids)):
            if learnt[t]:
                nats -= float(q[t - 1, ids[t]])
                kl += sum(math.exp(a) * (a - b) for a, b in zip(p[t - 1], q[t - 1], strict=True))
                tokens += 1
    return (nats + weight * kl) / tokens, kl / tokens


def test_the_loss_by_a_loop(make_model: Make) -> None:
    model, near = make_model(1), make_model(2)
    rows = batches()
    step = rows[0]
    assert int((step.targets != IGNORE).sum()) == 3 * 8  # one packed row holds all three texts, and stands in the step three times
    expected, distance = loop(model, near, 0.7)
    for micro in (1, 8):
        parts = list(language_losses(model.transformer, rows, 0, micro=micro, dtype=torch.float32, leash=Leash(near.transformer, 0.7)))
        assert sum(float(loss.detach()) for loss, _ in parts) == pytest.approx(expected, abs=1e-4)
        assert sum(numbers["kl"] for _, numbers in parts) == pytest.approx(distance, abs=1e-4)


def test_a_leash_to_oneself_costs_nothing_and_pulls_nowhere(make_model: Make) -> None:
    model = make_model(1)
    twin = model.copy().transformer.requires_grad_(False)
    gradients = []
    for leash in (None, Leash(twin, 5.0)):
        model.transformer.zero_grad()
        parts = list(language_losses(model.transformer, batches(), 0, micro=8, dtype=torch.float32, leash=leash))
        for loss, numbers in parts:
            loss.backward()
            assert numbers.get("kl", 0.0) == pytest.approx(0.0, abs=1e-6)
        gradients.append([p.grad.clone() for p in model.transformer.parameters() if p.grad is not None])
    for plain, held in zip(*gradients, strict=True):
        assert torch.allclose(plain, held, atol=1e-5)
    assert all(p.grad is None for p in twin.parameters())


@pytest.mark.parametrize("weight", [0.0, 4.0])
def test_a_tight_leash_keeps_the_model_near(make_model: Make, tmp_path: Path, weight: float) -> None:
    near = make_model(1)
    model, rows = near.copy(), batches()
    leash = Leash(near.transformer.requires_grad_(False), weight or 1e-9)

    def losses(step: int) -> object:
        return language_losses(model.transformer, rows, step % 1, micro=8, dtype=torch.float32, leash=leash)

    options = TrainOptions(optimiser="adamw", learning_rate=0.003, weight_decay=0.0, warmup=0)
    train(model.transformer, losses, steps=25, options=options, folder=tmp_path, progress=Silent(), seed=0)  # type: ignore[arg-type]
    (_, numbers), *_ = list(language_losses(model.transformer, rows, 0, micro=8, dtype=torch.float32, leash=leash))
    _, fresh = next(iter(language_losses(near.transformer, rows, 0, micro=8, dtype=torch.float32)))
    assert numbers["loss"] < fresh["loss"]  # it learnt something
    if weight:
        assert numbers["kl"] < 0.35
    else:
        assert numbers["kl"] > 0.7  # without the leash it goes at least twice as far
    assert np.isfinite(numbers["kl"])


def test_a_broken_off_run_ends_bit_equal(make_model: Make, tmp_path: Path) -> None:
    near = make_model(1)
    reference = Leash(near.copy().transformer.requires_grad_(False), 1.0)
    options = TrainOptions(optimiser="adamw", learning_rate=0.003, weight_decay=0.0, warmup=0, checkpoint_seconds=1e-3)

    def run(folder: Path, stop: int | None) -> dict[str, torch.Tensor]:
        model, rows = near.copy(), batches(2)

        def losses(step: int) -> object:
            if step == stop:
                raise KeyboardInterrupt
            return language_losses(model.transformer, rows, step, micro=1, dtype=torch.float32, leash=reference)

        train(model.transformer, losses, steps=12, options=options, folder=folder, progress=Silent(), seed=0)  # type: ignore[arg-type]
        return model.transformer.state_dict()

    whole = run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", 7)
    resumed = run(tmp_path / "broken", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
