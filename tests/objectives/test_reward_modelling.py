"""Losses of reward models: by hand, by slow loops written from the papers, against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from norma.objectives.reward_modelling import bradley_terry, logistic, rule_heads, squared

NUMBERS = st.floats(-30, 30, allow_nan=False)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS, st.floats(0, 3)), min_size=1, max_size=6)


def tensor(values: object, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


def test_bradley_terry_by_hand() -> None:
    """Rewards 2 over 1: -log(1 / (1 + e^-1)) = log(1 + .367879) = .313262; equal ones log 2; the wrong way round 1.313262."""
    assert float(bradley_terry(tensor([2.0]), tensor([1.0])).loss) == pytest.approx(0.313262, abs=1e-6)
    found = bradley_terry(tensor([2.0, 0.5, 1.0]), tensor([1.0, 0.5, 2.0]))
    assert float(found.loss) == pytest.approx(0.313262 + 0.693147 + 1.313262, abs=1e-5)
    assert int(found.correct) == 1 and float(found.margin) == 0.0, "a tie is not in order"
    # A margin of 1 uses the whole advantage up; .01 (2 + 1)^2 = .09 holds the two near zero.
    assert float(bradley_terry(tensor([2.0]), tensor([1.0]), tensor([1.0])).loss) == pytest.approx(math.log(2))
    assert float(bradley_terry(tensor([2.0]), tensor([1.0]), centring=0.01).loss) == pytest.approx(0.313262 + 0.09, abs=1e-6)


@given(PAIRS, st.sampled_from([0.0, 0.01, 0.5]))
def test_bradley_terry_by_a_loop_from_the_papers(pairs: list[tuple[float, float, float]], centring: float) -> None:
    """The probability itself, and its logarithm by Python's floats: another route than softplus."""
    total = 0.0
    for better, worse, margin in pairs:
        odds = math.exp(better - margin) / (math.exp(better - margin) + math.exp(worse))
        total += -math.log(odds) + centring * (better**2 + 2 * better * worse + worse**2)
    chosen, rejected, margins = (tensor(column) for column in zip(*pairs, strict=True))
    assert float(bradley_terry(chosen, rejected, margins, centring=centring).loss) == pytest.approx(total, rel=1e-6, abs=1e-9)


@given(PAIRS, NUMBERS)
def test_a_constant_is_free_without_centring_and_is_not_with_it(pairs: list[tuple[float, float, float]], constant: float) -> None:
    chosen, rejected, _ = (tensor(column) for column in zip(*pairs, strict=True))
    plain, moved = (bradley_terry(chosen + c, rejected + c).loss for c in (0.0, constant))
    assert float(moved) == pytest.approx(float(plain), rel=1e-9, abs=1e-9)
    best = -float((chosen + rejected).mean()) / 2  # where the squares of r_w + r_l + 2 c are smallest
    centred = [float(bradley_terry(chosen + c, rejected + c, centring=1.0).loss) for c in (best, best + 0.1, best - 0.1)]
    assert centred[0] < centred[1] and centred[0] < centred[2]


def test_nothing_overflows() -> None:
    far = torch.tensor([1e4, -1e4, 80.0, -80.0], requires_grad=True)
    loss = bradley_terry(far, -far, centring=0.0).loss + logistic(far, torch.ones(4), torch.ones(4, dtype=torch.bool)).loss
    (gradient,) = torch.autograd.grad(loss, far)
    assert math.isfinite(float(loss)) and gradient.isfinite().all()
    assert float(bradley_terry(torch.tensor([-1e4]), torch.tensor([1e4])).loss) == 2e4


def test_pointwise_by_hand() -> None:
    good = torch.tensor([True, False, True])
    found = squared(tensor([1.0, -2.0, 0.5]), tensor([2.0, 0.0, 0.5]), good)
    assert float(found.loss) == 1 + 4 + 0 and int(found.correct) == 3 and float(found.margin) == 3.5
    # logits 0 and log 3: P = 1/2 and 3/4. A quarter of the people liked the second: -(.25 log .75 + .75 log .25) = 1.111651
    found = logistic(tensor([0.0, math.log(3)]), tensor([1.0, 0.25]), good[:2])
    assert float(found.loss) == pytest.approx(math.log(2) - 0.25 * math.log(0.75) - 0.75 * math.log(0.25))
    assert int(found.correct) == 0, "zero is on no side, log 3 on the wrong one"


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 10**6))
def test_rule_heads_by_a_loop(answers: int, rules: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, kept = random.normal(size=(answers, rules)) * 3, random.random((answers, rules)) < 0.5
    marked = random.random((answers, rules)) < 0.6
    loss, correct, margin = 0.0, 0, 0.0
    for a in range(answers):
        for k in range(rules):
            if marked[a, k]:
                p = 1 / (1 + math.exp(-scores[a, k]))
                loss -= math.log(p if kept[a, k] else 1 - p)
                correct += (p > 0.5) == kept[a, k]
                margin += scores[a, k] if kept[a, k] else -scores[a, k]
    found = rule_heads(tensor(scores), torch.tensor(kept), torch.tensor(marked))
    assert (float(found.loss), float(found.margin)) == pytest.approx((loss, margin), abs=1e-9) and int(found.correct) == correct


def test_what_is_not_marked_teaches_nothing() -> None:
    scores = tensor([[1.0, -1.0], [2.0, 0.3]]).requires_grad_()
    marked = torch.tensor([[True, False], [False, True]])
    losses = [
        rule_heads(scores, torch.tensor(kept), marked).loss for kept in ([[True, False], [False, True]], [[True, True], [True, True]])
    ]
    assert losses[0] == losses[1]
    (gradient,) = torch.autograd.grad(losses[0], scores)
    assert (gradient != 0).equal(marked)


@pytest.mark.parametrize("which", ["pairs", "squared", "logistic", "rules"])
def test_gradients_by_finite_differences(which: str) -> None:
    torch.manual_seed(0)
    r, y = torch.randn(6, dtype=torch.float64, requires_grad=True), torch.rand(6, dtype=torch.float64)
    good = y > 0.5
    losses = {
        "pairs": lambda x: bradley_terry(x[:3], x[3:], y[:3], centring=0.3).loss,
        "squared": lambda x: squared(x, y, good).loss,
        "logistic": lambda x: logistic(x, y, good).loss,
        "rules": lambda x: rule_heads(x.view(3, 2), good.view(3, 2), (y < 0.9).view(3, 2)).loss,
    }
    assert torch.autograd.gradcheck(losses[which], r)
