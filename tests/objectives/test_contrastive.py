"""InfoNCE: by hand, by a slow loop written from the papers, its gradient against finite differences, and that it learns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from norma.objectives.contrastive import info_nce


def test_two_rows_by_hand() -> None:
    """Unit vectors at right angles, t = 1: each row has similarities 1 and 0: -log(e / (e + 1)) = .313262, twice."""
    eye = 3.0 * torch.eye(2, dtype=torch.float64)  # lengths do not count
    found = info_nce(eye, torch.eye(2, dtype=torch.float64), temperature=1.0)
    assert float(found.loss) == pytest.approx(2 * 0.313262, abs=1e-5) and int(found.nearest) == 2
    swapped = info_nce(eye, torch.eye(2, dtype=torch.float64).flip(0), temperature=1.0)
    assert float(swapped.loss) == pytest.approx(2 * 1.313262, abs=1e-5) and int(swapped.nearest) == 0


def slow(a: np.ndarray, b: np.ndarray, t: float, groups: list[int] | None = None) -> float:
    total = 0.0
    for i in range(len(a)):
        weights = {}
        for j in range(len(b)):
            if groups is not None and j != i and groups[i] == groups[j]:
                continue
            weights[j] = math.exp(float(a[i] @ b[j]) / math.sqrt(float(a[i] @ a[i]) * float(b[j] @ b[j])) / t)
        total -= math.log(weights[i] / sum(weights.values()))
    return total


@given(st.integers(1, 5), st.integers(0, 3), st.integers(0, 10_000), st.sampled_from([0.1, 0.5, 2.0]))
def test_the_papers_loop(count: int, hard: int, seed: int, t: float) -> None:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=(count, 4)), random.normal(size=(count + hard, 4))
    groups = random.integers(0, 3, count + hard).tolist()
    assert float(info_nce(torch.tensor(a), torch.tensor(b), temperature=t).loss) == pytest.approx(slow(a, b, t), rel=1e-9, abs=1e-9)
    found = info_nce(torch.tensor(a), torch.tensor(b), temperature=t, groups_M=torch.tensor(groups))
    assert float(found.loss) == pytest.approx(slow(a, b, t, groups), rel=1e-9, abs=1e-9)
    both = info_nce(torch.tensor(a), torch.tensor(b), temperature=t, symmetric=True)
    assert float(both.loss) == pytest.approx((slow(a, b, t) + slow(b[:count], a, t)) / 2, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("symmetric", [False, True])
def test_gradient_against_finite_differences(symmetric: bool) -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    assert torch.autograd.gradcheck(lambda x, y: info_nce(x, y, temperature=0.5, symmetric=symmetric).loss, (a, b))


def test_partners_come_together() -> None:
    torch.manual_seed(1)
    a, b = torch.randn(16, 8, requires_grad=True), torch.randn(16, 8)
    optimiser = torch.optim.Adam([a], lr=0.1)
    assert int(info_nce(a, b).nearest) < 8
    for _ in range(60):
        optimiser.zero_grad()
        info_nce(a, b).loss.backward()
        optimiser.step()
    assert int(info_nce(a, b).nearest) == 16
