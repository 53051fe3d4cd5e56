"""Norms in pretraining: weights by hand, unlikelihood's gradient against autograd, grades in flags, control tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.objectives.conditional import ByGrade, controlled, grade_weights
from norma.objectives.likelihood import cross_entropy
from norma.text.grades import STEPS, rewards_of, with_grade
from norma.text.packing import IGNORE
from norma.text.words import SENTENCE, WORD


def test_weights_by_hand() -> None:
    rewards = np.array([1.0, 0.5, 0.0, np.nan], dtype=np.float32)
    assert grade_weights(rewards, ByGrade("unlikelihood", threshold=0.75, alpha=0.3)).tolist() == pytest.approx([1.0, -0.3, -0.3, 1.0])
    assert grade_weights(rewards, ByGrade("weighted", beta=0.5)).tolist() == pytest.approx([1.0, math.exp(-1), math.exp(-2), 1.0])
    with pytest.raises(ValueError, match="beta"):
        ByGrade("weighted", beta=0.0)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.integers(0, 15))
def test_grades_live_beside_the_marks(reward: float, marks: int) -> None:
    flags = np.full(3, marks, dtype=np.uint8)
    graded = with_grade(flags, reward)
    assert (graded & 0x0F).tolist() == flags.tolist()
    assert rewards_of(graded) == pytest.approx(np.full(3, reward), abs=0.5 / STEPS + 1e-6)
    assert np.isnan(rewards_of(with_grade(graded, None))).all()
    assert rewards_of(with_grade(flags, 1.0))[0] == 1.0
    assert rewards_of(with_grade(flags, 0.0))[0] == 0.0
    assert with_grade(flags, 1.0).dtype == np.uint8
    assert ((with_grade(np.full(1, WORD | SENTENCE, np.uint8), 0.3) & SENTENCE) > 0).all()
    with pytest.raises(ValueError, match="0 to 1"):
        with_grade(flags, 1.5)


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_weighted_and_unlikely_targets_by_autograd(softcap: float | None) -> None:
    random = torch.Generator().manual_seed(1)
    hidden = torch.randn(30, 8, generator=random, requires_grad=True)
    weight = torch.randn(11, 8, generator=random, requires_grad=True)
    bias = torch.randn(11, generator=random, requires_grad=True)
    targets = torch.randint(0, 11, (30,), generator=random)
    targets[3] = IGNORE
    weights = torch.randn(30, generator=random)
    weights[5] = 0.0
    found, nats = cross_entropy(hidden, weight, targets, bias=bias, softcap=softcap, weights_N=weights)
    (2 * found).backward()
    ours = [x.grad.clone() for x in (hidden, weight, bias) if x.grad is not None]
    for x in (hidden, weight, bias):
        x.grad = None

    total = torch.zeros(())
    for n in range(30):  # a slow loop from the paper's formulas
        if targets[n] == IGNORE:
            continue
        scores = weight @ hidden[n] + bias
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        p = scores.softmax(0)[targets[n]]
        total = total + (weights[n] * -p.log() if weights[n] >= 0 else weights[n].abs() * -(1 - p).log())
    torch.testing.assert_close(found, total, rtol=1e-5, atol=1e-5)
    assert nats.shape == (29,)
    (2 * total).backward()
    for got, x in zip(ours, (hidden, weight, bias), strict=True):
        assert x.grad is not None
        torch.testing.assert_close(got, x.grad, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="neither z_loss nor smoothing"):
        cross_entropy(hidden, weight, targets, weights_N=weights, z_loss=0.1)


def test_a_certain_token_can_still_become_unlikely() -> None:
    """-log(1 - p) and its gradient stay finite where p is 1 in fp32."""
    hidden, weight = torch.tensor([[40.0]], requires_grad=True), torch.tensor([[1.0], [-1.0]])
    loss, _ = cross_entropy(hidden, weight, torch.tensor([0]), weights_N=torch.tensor([-1.0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()


def test_control_tokens() -> None:
    units = [(np.array([5, 6]), 1.0), (np.array([7]), 0.2), (np.array([8]), None)]
    how = {"good": 1, "bad": 2, "threshold": 0.5}
    kept = controlled(units, np.random.default_rng(0), dropped=0.0, **how)
    assert [ids.tolist() for ids in kept] == [[1, 5, 6], [2, 7], [8]]
    assert [ids.tolist() for ids in controlled(units, np.random.default_rng(0), dropped=1.0, **how)] == [[5, 6], [7], [8]]
    many = controlled([(np.array([9]), 1.0)] * 4000, np.random.default_rng(0), dropped=0.25, **how)
    assert sum(len(ids) == 1 for ids in many) == pytest.approx(1000, abs=100)
