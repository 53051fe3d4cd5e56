"""Advantages, the clipped loss and the KL estimators: by hand, by enumeration of a small vocabulary, by simulation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from norma.objectives.policy_gradient import clipped_policy_loss, group_advantages, kl_estimate, kl_penalty

rewards = st.lists(st.one_of(st.none(), st.floats(-3, 3)), min_size=1, max_size=9)


def test_advantages_by_hand() -> None:
    # Mean 0.5, unbiased standard deviation of (0, 1, 0.5): 0.5.
    assert group_advantages([0.0, 1.0, 0.5]) == pytest.approx([-0.5 / 0.5001, 0.5 / 0.5001, 0.0])
    assert group_advantages([0.0, 1.0, 0.5], divide_by_std=False) == [-0.5, 0.5, 0.0]
    assert group_advantages([None, 3.0, 1.0, None], divide_by_std=False) == [0.0, 1.0, -1.0, 0.0]


@pytest.mark.parametrize("flat", [[0.1] * 3, [0.7] * 6, [None, 0.1, 0.1, 0.1], [1 / 3] * 7, [None, None], [5.0], [None, 5.0], []])
@pytest.mark.parametrize("divide", [True, False])
def test_a_flat_group_teaches_exactly_nothing(flat: list[float | None], divide: bool) -> None:
    assert group_advantages(flat, divide_by_std=divide) == [0.0] * len(flat)


@given(rewards, st.booleans(), st.floats(-5, 5))
def test_advantages_sum_to_zero_keep_the_order_and_forget_a_shift(group: list[float | None], divide: bool, shift: float) -> None:
    made = group_advantages(group, divide_by_std=divide)
    assert sum(made) == pytest.approx(0, abs=1e-9)
    assert all(a == 0 for a, r in zip(made, group, strict=True) if r is None)
    known = [(r, a) for r, a in zip(group, made, strict=True) if r is not None]
    assert all(a1 <= a2 for r1, a1 in known for r2, a2 in known if r1 < r2)
    moved = group_advantages([None if r is None else r + shift for r in group], divide_by_std=divide)
    assert moved == pytest.approx(made, abs=1e-6)


def test_clipped_loss_by_hand() -> None:
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1])
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0, 2.0])
    new = ratio.log().requires_grad_()
    loss = clipped_policy_loss(new, torch.zeros(5), advantages, clip_low=0.2, clip_high=0.28)
    # A gain is cut at 1.28, a gain that fell counts as it is; a loss that rose counts as it is, one that fell is cut at 0.8.
    assert float(loss) == pytest.approx(-(1.28 + 0.5 - 1.5 - 0.8 + 2.2))
    loss.backward()
    torch.testing.assert_close(new.grad, torch.tensor([0.0, -0.5, 1.5, 0.0, -2.2]))


def test_at_ratio_one_the_gradient_is_reinforces() -> None:
    new = torch.tensor([-1.0, -2.0, -0.1], requires_grad=True)
    advantages = torch.tensor([2.0, -3.0, 0.0])
    (gradient,) = torch.autograd.grad(clipped_policy_loss(new, new.detach(), advantages), new)
    torch.testing.assert_close(gradient, -advantages)


def policy() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a policy and log-probabilities of a reference over five tokens."""
    return torch.tensor([0.3, -1.0, 0.8, 0.0, -0.4], dtype=torch.float64, requires_grad=True), torch.tensor(
        [-0.2, 0.4, 0.1, -1.5, 0.9], dtype=torch.float64
    ).log_softmax(0)


def test_k3_is_unbiased_never_negative_and_zero_of_itself() -> None:
    logits, reference = policy()
    log_p = logits.detach().log_softmax(0)
    exact = float((log_p.exp() * (log_p - reference)).sum())
    enumerated = sum(float(p * kl_estimate(a[None], b[None])) for p, a, b in zip(log_p.exp(), log_p, reference, strict=True))
    assert enumerated == pytest.approx(exact, rel=1e-12)
    drawn = torch.multinomial(log_p.exp(), 40_000, replacement=True, generator=torch.Generator().manual_seed(0))
    each = torch.stack([kl_estimate(a[None], b[None]) for a, b in zip(log_p, reference, strict=True)])
    assert (each >= 0).all() and float(kl_estimate(log_p, log_p)) == 0
    sample = each[drawn]
    assert float(kl_estimate(log_p[drawn], reference[drawn])) == pytest.approx(float(sample.sum()))
    assert abs(float(sample.mean()) - exact) < 4 * float(sample.std()) / 200
    assert not kl_estimate(logits.log_softmax(0), reference).requires_grad


def test_the_gradient_of_k2_on_samples_is_that_of_the_exact_kl() -> None:
    logits, reference = policy()
    log_p = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((log_p.exp() * (log_p - reference)).sum(), logits)
    expected = torch.zeros_like(exact)
    for token in range(5):
        log_p = logits.log_softmax(0)
        (gradient,) = torch.autograd.grad(kl_penalty(log_p[token : token + 1], reference[token : token + 1]), logits)
        expected += log_p[token].exp().detach() * gradient
    torch.testing.assert_close(expected, exact)
    # k3 as a loss would not do: its gradient is that of KL the other way round.
    assert float(kl_penalty(reference, reference)) == 0


def test_the_sampled_policy_gradient_is_that_of_the_expected_reward() -> None:
    """Groups of four answers of one token, a reward for each token: the mean gradient lies within its interval around the exact one."""
    logits, _ = policy()
    reward = torch.tensor([0.0, 1.0, 0.2, -0.5, 0.7], dtype=torch.float64)
    (exact,) = torch.autograd.grad((logits.softmax(0) * reward).sum(), logits)
    random = torch.Generator().manual_seed(1)
    groups = torch.multinomial(logits.detach().softmax(0), 4 * 3000, replacement=True, generator=random).view(-1, 4)
    advantages = torch.tensor([group_advantages(g, divide_by_std=False) for g in reward[groups].tolist()], dtype=torch.float64)
    # The mean of a group holds the answer itself, so the expected gradient is (G - 1) / G of the exact one.
    onehot = torch.nn.functional.one_hot(groups, 5).double()
    score = onehot - logits.detach().softmax(0)
    each = (advantages[..., None] * score).mean(1) * 4 / 3
    error = each.std(0) / len(each) ** 0.5
    assert ((each.mean(0) - exact).abs() < 4 * error).all() and (exact.abs() > 4 * error).any()
    new = logits.log_softmax(0)[groups].flatten()
    (ours,) = torch.autograd.grad(clipped_policy_loss(new, new.detach(), advantages.flatten()), logits)
    torch.testing.assert_close(-ours / groups.numel() * 4 / 3, each.mean(0))
