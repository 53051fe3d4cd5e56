"""The clipped loss, its ratios and averages, the KL estimators: by hand, by enumeration of a small vocabulary, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from norma.objectives.advantages import group_advantages
from norma.objectives.policy_gradient import (
    average_weights,
    clipped,
    clipped_policy_loss,
    kl_estimate,
    kl_penalty,
    sequence_ratio,
    token_ratio,
)


def test_clipped_loss_by_hand() -> None:
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1])
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0, 2.0])
    new = ratio.log().requires_grad_()
    loss = clipped_policy_loss(token_ratio(new, torch.zeros(5)), advantages, clip_low=0.2, clip_high=0.28)
    # A gain is cut at 1.28, a gain that fell counts as it is; a loss that rose counts as it is, one that fell is cut at 0.8.
    assert float(loss) == pytest.approx(-(1.28 + 0.5 - 1.5 - 0.8 + 2.2))
    loss.backward()
    torch.testing.assert_close(new.grad, torch.tensor([0.0, -0.5, 1.5, 0.0, -2.2]))
    # The tokens that got no gradient are those that count as clipped.
    assert clipped(ratio, advantages, clip_low=0.2, clip_high=0.28).tolist() == [True, False, False, True, False]


def test_at_ratio_one_the_gradient_is_reinforces() -> None:
    new = torch.tensor([-1.0, -2.0, -0.1], requires_grad=True)
    advantages = torch.tensor([2.0, -3.0, 0.0])
    (gradient,) = torch.autograd.grad(clipped_policy_loss(token_ratio(new, new.detach()), advantages), new)
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
    (ours,) = torch.autograd.grad(clipped_policy_loss(token_ratio(new, new.detach()), advantages.flatten()), logits)
    torch.testing.assert_close(-ours / groups.numel() * 4 / 3, each.mean(0))


LENGTHS = [3, 1, 4]
OWNERS = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Old and new log-probabilities of three answers of 3, 1 and 4 tokens, and an advantage for each answer."""
    random = np.random.default_rng(seed)
    old = -random.exponential(1.0, 8)
    return old, old + random.normal(0, 0.4, 8), random.normal(0, 1, 3)


def loss_of(average: str, by: str, low: float, high: float) -> float:
    old, new, advantages = (torch.from_numpy(x) for x in drawn())
    lengths = torch.tensor(LENGTHS)
    ratio = token_ratio(new, old) if by == "token" else sequence_ratio(new, old, OWNERS)
    weights = average_weights(lengths, average, 5)[OWNERS].double()  # type: ignore[arg-type]
    return float(clipped_policy_loss(ratio, advantages[OWNERS], weights, clip_low=low, clip_high=high))


def test_grpos_objective_written_out() -> None:
    """2402.03300, eq. 3 (without its KL): 1/G sum_i 1/|o_i| sum_t min(r A, clip(r) A)."""
    old, new, advantages = drawn()
    total, at = 0.0, 0
    for i, n in enumerate(LENGTHS):
        inner = 0.0
        for t in range(at, at + n):
            r = math.exp(new[t] - old[t])
            inner += min(r * advantages[i], min(max(r, 0.8), 1.2) * advantages[i])
        total += inner / n
        at += n
    assert loss_of("answer", "token", 0.2, 0.2) == pytest.approx(-total / 3, rel=1e-6)


def test_dapos_and_dr_grpos_objectives_written_out() -> None:
    """DAPO (2503.14476, eq. 8): one mean over all tokens, a higher upper clip. Dr. GRPO (2503.20783): divided by a constant."""
    old, new, advantages = drawn()
    for average, high, divisor in (("token", 0.28, 8), ("constant", 0.2, 3 * 5), ("sum", 0.2, 3)):
        total, at = 0.0, 0
        for i, n in enumerate(LENGTHS):
            for t in range(at, at + n):
                r = math.exp(new[t] - old[t])
                cut = 1 - 0.2 if r < 1 - 0.2 else 1 + high if r > 1 + high else r
                total += min(r * advantages[i], cut * advantages[i])
            at += n
        assert loss_of(average, "token", 0.2, high) == pytest.approx(-total / divisor, rel=1e-6), average


def test_gspos_objective_written_out() -> None:
    """2507.18071, eq. 5 and 7: 1/G sum_i min(s A, clip(s) A), s = (pi(y) / pi_old(y))^(1/|y|); its gradient, eq. 10, by hand."""
    old, new, advantages = drawn()
    total, at = 0.0, 0
    for i, n in enumerate(LENGTHS):
        s = (math.exp(new[at : at + n].sum()) / math.exp(old[at : at + n].sum())) ** (1 / n)
        total += min(s * advantages[i], min(max(s, 0.9), 1.1) * advantages[i])
        at += n
    assert loss_of("answer", "sequence", 0.1, 0.1) == pytest.approx(-total / 3, rel=1e-6)
    # At ratio 1 each token of an answer gets A / |y| / G.
    start = torch.tensor(old, requires_grad=True)
    weights = average_weights(torch.tensor(LENGTHS), "answer", 5)[OWNERS].double()
    loss = clipped_policy_loss(sequence_ratio(start, start.detach(), OWNERS), torch.from_numpy(advantages)[OWNERS], weights)
    (gradient,) = torch.autograd.grad(loss, start)
    by_hand = [-advantages[i] / n / 3 for i, n in enumerate(LENGTHS) for _ in range(n)]
    torch.testing.assert_close(gradient, torch.tensor(by_hand), rtol=1e-6, atol=1e-9)


def test_averages_by_hand() -> None:
    lengths = torch.tensor([1, 3])
    assert average_weights(lengths, "token", 10).tolist() == pytest.approx([0.25, 0.25])
    assert average_weights(lengths, "answer", 10).tolist() == pytest.approx([1 / 2, 1 / 6])
    assert average_weights(lengths, "constant", 10).tolist() == pytest.approx([1 / 20, 1 / 20])
    assert average_weights(lengths, "sum", 10).tolist() == pytest.approx([1 / 2, 1 / 2])
    assert average_weights(torch.zeros(0, dtype=torch.int64), "token", 10).tolist() == []


def test_the_sampled_gradient_of_two_token_answers_is_the_exact_one() -> None:
    """A policy of two steps over three tokens (27 numbers), every answer and its reward enumerated: L = -E[R], as the founding text says.

    The estimator is REINFORCE with the others of the group as baseline, sums over tokens; its mean lies within 4 standard errors.
    """
    from norma.objectives.advantages import leave_one_out

    first = torch.tensor([0.2, -0.4, 0.7], dtype=torch.float64, requires_grad=True)
    second = torch.tensor([[0.1, 0.9, -0.3], [-1.0, 0.2, 0.5], [0.4, 0.0, -0.2]], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([[0.0, 1.0, 0.3], [-0.5, 0.7, 0.1], [0.9, -0.2, 0.4]], dtype=torch.float64)
    chance = first.softmax(0)[:, None] * second.softmax(1)
    exact = torch.autograd.grad(-(chance * reward).sum(), [first, second])
    random, size, groups = torch.Generator().manual_seed(2), 4, 4000
    drawn = torch.multinomial(chance.detach().flatten(), size * groups, replacement=True, generator=random)
    a, b = drawn // 3, drawn % 3
    values = reward.flatten()[drawn].view(groups, size)
    advantages = torch.tensor([leave_one_out(row) for row in values.tolist()], dtype=torch.float64).flatten()
    # d log p(y) / d logits, by hand: onehot - softmax at each of the two steps.
    one = torch.nn.functional.one_hot(a, 3).double() - first.detach().softmax(0)
    two = torch.zeros(len(a), 3, 3, dtype=torch.float64)
    two[torch.arange(len(a)), a] = torch.nn.functional.one_hot(b, 3).double() - second.detach().softmax(1)[a]
    for score, wanted in ((one, exact[0]), (two.flatten(1), exact[1].flatten())):
        each = (-advantages[:, None] * score).view(groups, size, -1).mean(1)
        error = each.std(0) / groups**0.5
        assert ((each.mean(0) - wanted).abs() < 4 * error).all()
        assert (wanted.abs() > 4 * error).any(), "else zero would pass too"
    new = torch.stack((first.log_softmax(0)[a], second.log_softmax(1)[a, b]), 1).flatten()
    owners = torch.arange(len(a)).repeat_interleave(2)
    weights = average_weights(torch.full((len(a),), 2), "sum", 2)[owners].double()
    ours = torch.autograd.grad(clipped_policy_loss(token_ratio(new, new.detach()), advantages[owners], weights), [first, second])
    torch.testing.assert_close(ours[0], (-advantages[:, None] * one).mean(0), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(ours[1].flatten(), (-advantages[:, None] * two.flatten(1)).mean(0), rtol=1e-5, atol=1e-8)
