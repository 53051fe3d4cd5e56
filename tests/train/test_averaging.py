"""The average of the weights is the sum that its definition says, and ends up in the model when asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny_run import STEPS, model, options_of, run, weights

from norma.train.averaging import WeightAverage


def test_by_hand() -> None:
    made = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        made.weight.fill_(10.0)
    average = WeightAverage(made, 0.15)
    for weight in (20.0, 30.0):
        with torch.no_grad():
            made.weight.fill_(weight)
        average.update(made)
    # Decays min(.15, 1/10) and min(.15, 2/11): 10 .1 + 20 .9 = 19; 19 .15 + 30 .85 = 28.35.
    assert float(average.tensors["weight"]) == pytest.approx(28.35)
    average.copy_to(made)
    assert float(made.weight.detach()) == pytest.approx(28.35)


def test_half_precision_weights_and_frozen_ones() -> None:
    made = torch.nn.Linear(1, 1, dtype=torch.bfloat16)
    made.bias.requires_grad_(False)
    average = WeightAverage(made, 0.999)
    assert {n: t.dtype for n, t in average.tensors.items()} == {"weight": torch.float32}
    average.update(made)
    average.copy_to(made)
    assert made.weight.dtype == torch.bfloat16


def test_in_a_run(tmp_path: Path) -> None:
    """Against a loop over the weights after every step, which the runs of 1, 2, 3, ... steps give."""
    path = [weights(model())]
    for steps in range(1, STEPS + 1):
        made = model()
        run(made, tmp_path / str(steps), options_of(checkpoint_seconds=1e9), steps=steps)
        path.append(weights(made))
    wanted = path[0].double()
    for n, weight in enumerate(path[1:]):
        decay = min(0.6, (1 + n) / (10 + n))
        wanted = decay * wanted + (1 - decay) * weight.double()
    raw, averaged = model(), model()
    run(raw, tmp_path / "raw", options_of(ema=0.6))
    run(averaged, tmp_path / "averaged", options_of(ema=0.6, averaged=True))
    assert torch.equal(weights(raw), path[-1])
    torch.testing.assert_close(weights(averaged).double(), wanted, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(weights(averaged), weights(raw), atol=1e-3)


def test_averaged_needs_an_average() -> None:
    with pytest.raises(ValidationError, match="averaged needs ema"):
        options_of(averaged=True)
