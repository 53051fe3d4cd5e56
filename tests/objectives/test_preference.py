"""DPO by hand and against a NumPy loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from norma.objectives.preference import dpo


def test_by_hand() -> None:
    # Margin 0.5 * ((-1 - -2) - (-3 - -2)) = 1; loss = ln(1 + e^-1); d loss / d chosen = -0.5 * sigmoid(-1).
    chosen, rejected = torch.tensor([-1.0], requires_grad=True), torch.tensor([-3.0], requires_grad=True)
    result = dpo(chosen, rejected, torch.tensor([-2.0]), torch.tensor([-2.0]), beta=0.5)
    assert float(result.loss) == pytest.approx(math.log(1 + math.exp(-1)))
    assert (float(result.chosen_reward), float(result.rejected_reward), int(result.correct)) == (0.5, -0.5, 1)
    result.loss.backward()
    assert chosen.grad is not None and rejected.grad is not None
    slope = 0.5 / (1 + math.e)
    assert (float(chosen.grad), float(rejected.grad)) == (pytest.approx(-slope), pytest.approx(slope))


def test_a_policy_that_is_its_reference_pays_ln_2() -> None:
    same = torch.tensor([-4.0, -9.0])
    result = dpo(same, same - 1, same, same - 1, beta=0.1)
    assert float(result.loss) == pytest.approx(2 * math.log(2)) and int(result.correct) == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_against_a_loop(smoothing: float) -> None:
    random = np.random.default_rng(0)
    policy, reference = random.normal(-20, 8, (2, 2, 30)).astype(np.float64)
    beta, total, chosen_sum, rejected_sum, correct = 0.3, 0.0, 0.0, 0.0, 0
    for i in range(30):
        chosen, rejected = beta * (policy[0, i] - reference[0, i]), beta * (policy[1, i] - reference[1, i])
        p = 1 / (1 + math.exp(-(chosen - rejected)))
        total += -(1 - smoothing) * math.log(p) - smoothing * math.log(1 - p)
        chosen_sum, rejected_sum, correct = chosen_sum + chosen, rejected_sum + rejected, correct + (chosen > rejected)
    result = dpo(*map(torch.from_numpy, (policy[0], policy[1], reference[0], reference[1])), beta=beta, smoothing=smoothing)
    assert float(result.loss) == pytest.approx(total)
    assert (float(result.chosen_reward), float(result.rejected_reward)) == (pytest.approx(chosen_sum), pytest.approx(rejected_sum))
    assert int(result.correct) == correct
