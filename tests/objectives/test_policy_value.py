"""The value head's loss and what it explains: by hand and by a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from norma.objectives.value import clipped_value_loss, explained_variance


def test_value_loss_by_hand() -> None:
    old, returns = torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, 0.1])
    values = torch.tensor([0.1, 0.5, 0.5, 0.1], requires_grad=True)
    # Within the clip: .9^2. Beyond it, towards the return: as if at .2, (.8)^2, and no gradient. Away from it: 1.5^2. Right: 0.
    loss = clipped_value_loss(values, old, returns, 0.2)
    assert float(loss.detach()) == pytest.approx((0.81 + 0.64 + 2.25 + 0.0) / 2)
    loss.backward()
    torch.testing.assert_close(values.grad, torch.tensor([-0.9, 0.0, 1.5, 0.0]))


def test_value_loss_is_the_slow_loop() -> None:
    random = np.random.default_rng(3)
    values, old, returns = random.normal(size=(3, 50))
    total = 0.0
    for v, o, r in zip(values, old, returns, strict=True):
        near = min(max(v, o - 0.3), o + 0.3)
        total += 0.5 * max((v - r) ** 2, (near - r) ** 2)
    made = clipped_value_loss(*(torch.from_numpy(x) for x in (values, old, returns)), 0.3)
    assert float(made) == pytest.approx(total, rel=1e-12)


def test_explained_variance() -> None:
    returns = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert explained_variance(returns + 5, returns) == pytest.approx(1.0), "a constant error is not the values' to explain"
    assert explained_variance(torch.full((4,), 1.5), returns) == pytest.approx(0.0)
    assert explained_variance(-returns, returns) == pytest.approx(-3.0)  # Var(2R) / Var(R) = 4
    assert explained_variance(returns, torch.ones(4)) == 0.0 and explained_variance(torch.zeros(0), torch.zeros(0)) == 0.0
