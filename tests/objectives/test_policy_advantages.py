"""Advantage estimators and reward shaping: by hand, by slow loops from the papers, and what must hold for any group."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from norma.objectives.advantages import flat, generalised_advantages, group_advantages, leave_one_out, whiten
from norma.objectives.shaping import adapted_coefficient, overlong_penalty, running_mean, token_rewards

rewards = st.lists(st.one_of(st.none(), st.floats(-3, 3)), min_size=1, max_size=9)


def test_advantages_by_hand() -> None:
    # Mean 0.5, unbiased standard deviation of (0, 1, 0.5): 0.5.
    assert group_advantages([0.0, 1.0, 0.5]) == pytest.approx([-0.5 / 0.5001, 0.5 / 0.5001, 0.0])
    assert group_advantages([0.0, 1.0, 0.5], divide_by_std=False) == [-0.5, 0.5, 0.0]
    assert group_advantages([None, 3.0, 1.0, None], divide_by_std=False) == [0.0, 1.0, -1.0, 0.0]


def test_leave_one_out_by_hand() -> None:
    # 0 against (1 + 2) / 2, 1 against (0 + 2) / 2, 2 against (0 + 1) / 2; the judge's failure is nobody's baseline.
    assert leave_one_out([0.0, 1.0, 2.0, None]) == pytest.approx([-1.5, 0.0, 1.5, 0.0])


@pytest.mark.parametrize("group", [[0.1] * 3, [0.7] * 6, [None, 0.1, 0.1, 0.1], [1 / 3] * 7, [None, None], [5.0], [None, 5.0], []])
@pytest.mark.parametrize("divide", [True, False])
def test_a_flat_group_teaches_exactly_nothing(group: list[float | None], divide: bool) -> None:
    assert flat(group) and not flat([*group, 0.0, 1.0])
    assert group_advantages(group, divide_by_std=divide) == leave_one_out(group) == [0.0] * len(group)


@given(rewards, st.booleans(), st.floats(-5, 5))
def test_advantages_sum_to_zero_keep_the_order_and_forget_a_shift(group: list[float | None], divide: bool, shift: float) -> None:
    made = group_advantages(group, divide_by_std=divide)
    assert sum(made) == pytest.approx(0, abs=1e-9)
    assert all(a == 0 for a, r in zip(made, group, strict=True) if r is None)
    known = [(r, a) for r, a in zip(group, made, strict=True) if r is not None]
    assert all(a1 <= a2 for r1, a1 in known for r2, a2 in known if r1 < r2)
    moved = group_advantages([None if r is None else r + shift for r in group], divide_by_std=divide)
    assert moved == pytest.approx(made, abs=1e-6)


@given(rewards)
def test_leave_one_out_is_the_mean_of_the_others(group: list[float | None]) -> None:
    made = leave_one_out(group)
    for i, reward in enumerate(group):
        others = [r for j, r in enumerate(group) if j != i and r is not None]
        expected = 0.0 if reward is None or not others or flat(group) else reward - np.mean(others)
        assert made[i] == pytest.approx(expected, abs=1e-9)


def slow_gae(rewards: list[float], values: list[float], discount: float, decay: float) -> list[float]:
    """1506.02438, eq. 16: A_t = sum_l (discount decay)^l delta_t+l, the sum written out."""
    V = [*values, 0.0]
    delta = [r + discount * V[t + 1] - V[t] for t, r in enumerate(rewards)]
    return [sum((discount * decay) ** (k - t) * delta[k] for k in range(t, len(delta))) for t in range(len(delta))]


def test_gae_by_hand() -> None:
    # One reward of 1 at the end, values .5 and .6: delta = (.1, .4); with decay .5: A = (.1 + .5 x .4, .4).
    made, returns = generalised_advantages(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.6]]), torch.tensor([2]), decay=0.5)
    torch.testing.assert_close(made, torch.tensor([[0.3, 0.4]]))
    torch.testing.assert_close(returns, torch.tensor([[0.8, 1.0]]))


@pytest.mark.parametrize(("discount", "decay"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_gae_is_the_papers_sum_whatever_stands_in_the_padding(discount: float, decay: float) -> None:
    random = np.random.default_rng(0)
    lengths = [5, 1, 3]
    given_rewards, values = random.normal(size=(3, 7)), random.normal(size=(3, 7))
    values[:, 5:] = np.nan  # what is never looked at may be anything
    made, returns = generalised_advantages(
        torch.from_numpy(np.nan_to_num(given_rewards)), torch.from_numpy(values), torch.tensor(lengths), discount=discount, decay=decay
    )
    for row, n in enumerate(lengths):
        expected = slow_gae(given_rewards[row, :n].tolist(), values[row, :n].tolist(), discount, decay)
        np.testing.assert_allclose(made[row, :n].numpy(), expected, rtol=1e-12)
        np.testing.assert_allclose(returns[row, :n].numpy(), np.array(expected) + values[row, :n], rtol=1e-12)
        assert not made[row, n:].any() and not returns[row, n:].any()


def test_with_decay_one_an_advantage_is_what_is_still_to_come_less_the_value() -> None:
    given_rewards, values = torch.tensor([[0.1, -0.2, 1.0]]), torch.tensor([[0.4, 0.3, 0.9]])
    made, _ = generalised_advantages(given_rewards, values, torch.tensor([3]), decay=1.0)
    torch.testing.assert_close(made, torch.tensor([[0.9 - 0.4, 0.8 - 0.3, 1.0 - 0.9]]))


def test_the_reward_sits_on_the_last_real_token_and_the_leash_on_every_one() -> None:
    old = torch.tensor([[-1.0, -2.0, 9.0], [-0.5, -0.5, -0.5]])  # the 9 is padding
    reference = torch.tensor([[-1.5, -1.0, -7.0], [-0.5, -1.5, -0.25]])
    made = token_rewards(torch.tensor([10.0, -1.0]), old, reference, torch.tensor([2, 3]), 0.1)
    torch.testing.assert_close(made, torch.tensor([[-0.05, 10.0 + 0.1, 0.0], [0.0, -0.1, -1.0 + 0.025]]))


def test_the_leash_in_the_reward_is_the_kl_on_average() -> None:
    """k1: the mean of log pi - log ref over answers from pi is KL(pi || ref), enumerated over four answers."""
    pi, ref = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0.4, 0.3, 0.2, 0.1])
    made = token_rewards(torch.zeros(4), pi.log()[:, None], ref.log()[:, None], torch.ones(4, dtype=torch.int64), 2.0)
    kl = sum(p * np.log(p / r) for p, r in ((0.1, 0.4), (0.2, 0.3), (0.3, 0.2), (0.4, 0.1)))
    assert float((pi * made[:, 0]).sum()) == pytest.approx(-2 * kl, rel=1e-5)


def test_whitening() -> None:
    made = whiten(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    # Mean 3, unbiased variance (4 + 1 + 0 + 9) / 3.
    torch.testing.assert_close(made, torch.tensor([-2.0, -1.0, 0.0, 3.0]) / (14 / 3) ** 0.5)
    assert abs(float(made.mean())) < 1e-6, "the mean is not added back"
    assert whiten(torch.tensor([5.0])).tolist() == [0.0] and whiten(torch.zeros(0)).tolist() == []


def test_overlong_penalty_by_hand() -> None:
    # 100 tokens at most, a buffer of 20: none up to 80, half at 90, all at 100.
    assert [overlong_penalty(n, 100, 20) for n in (1, 80, 85, 90, 100)] == pytest.approx([0, 0, -0.25, -0.5, -1])
    assert overlong_penalty(100, 100, 0) == 0


def test_an_adaptive_leash_by_hand() -> None:
    # Twice the target is held to an error of .2, half of it to -.2; on target nothing moves.
    assert adapted_coefficient(0.5, 0.2, 0.1) == pytest.approx(0.5 * 1.02)
    assert adapted_coefficient(0.5, 0.05, 0.1) == pytest.approx(0.5 * 0.98)
    assert adapted_coefficient(0.5, 0.11, 0.1) == pytest.approx(0.5 * 1.01)
    assert adapted_coefficient(0.5, 0.1, 0.1) == 0.5


def test_a_running_mean_by_hand() -> None:
    assert running_mean(None, 4.0, 0.9) == 4.0
    assert running_mean(4.0, 0.0, 0.75) == 3.0
