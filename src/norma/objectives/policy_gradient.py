"""The founding text's norm loss L = -E_{x, y ~ p_theta}[R(x, y)], by policy gradient with a leash to a reference.

    log p, old log p, advantages ─→ ratio (of tokens, or of whole answers) ─→ clipped loss ─→ times the weight of each token

Everything is a sum over the tokens it is given; ``average_weights`` holds the division, made for the whole step at once, so that
micro-batches and ranks change nothing. Letters: A answers, M tokens of answers.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Average = Literal["token", "answer", "constant", "sum"]


def average_weights(lengths_A: Tensor, average: Average, longest: int) -> Tensor:
    """(A,) what each token of an answer counts in the step's loss.

    token: the mean over all tokens (DAPO, 2503.14476, eq. 8). answer: the mean within each answer, then over answers (GRPO,
    2402.03300, eq. 3; short answers' tokens count more). constant: the sum within an answer by ``longest``, the most tokens an answer
    may have, then the mean over answers (Dr. GRPO, 2503.20783). sum: the sum within an answer, then the mean: log p(y) itself, REINFORCE.
    """
    lengths, count = lengths_A.float(), max(1, len(lengths_A))
    if average == "token":
        return torch.ones_like(lengths) / lengths.sum().clamp(min=1)
    if average == "answer":
        return 1.0 / (lengths.clamp(min=1) * count)
    return torch.full_like(lengths, 1.0 / (count * (longest if average == "constant" else 1)))


def token_ratio(new_M: Tensor, old_M: Tensor) -> Tensor:
    """(M,) pi / pi_old of each token."""
    return torch.exp(new_M - old_M)


def sequence_ratio(new_M: Tensor, old_M: Tensor, owners_M: Tensor) -> Tensor:
    """(M,) (pi(y) / pi_old(y))^(1/|y|) of the answer each token belongs to: one ratio for all its tokens (GSPO, 2507.18071, eq. 7).

    ``owners_M``: the number of the answer of each token; the tokens of an answer must all be given.
    """
    count = int(owners_M.max()) + 1 if len(owners_M) else 0
    sums = torch.zeros(count, dtype=new_M.dtype, device=new_M.device)
    lengths = sums.index_add(0, owners_M, torch.ones_like(new_M))
    return torch.exp(sums.index_add(0, owners_M, new_M - old_M) / lengths.clamp(min=1))[owners_M]


def clipped_policy_loss(
    ratio_M: Tensor, advantages_M: Tensor, weights_M: Tensor | None = None, *, clip_low: float = 0.2, clip_high: float = 0.28
) -> Tensor:
    """Sum over tokens of -w min(ratio A, clip(ratio) A)      (PPO, 1707.06347, eq. 7; high clip: DAPO, 2503.14476, eq. 10)

    The old log-probabilities must come from the trainer's own forward pass; with ``old = new.detach()`` the ratio is one and the
    gradient is REINFORCE's.
    """
    gain = torch.minimum(ratio_M * advantages_M, ratio_M.clamp(1 - clip_low, 1 + clip_high) * advantages_M)
    return -(gain if weights_M is None else gain * weights_M).sum()


def clipped(ratio_M: Tensor, advantages_M: Tensor, *, clip_low: float = 0.2, clip_high: float = 0.28) -> Tensor:
    """(M,) bool, True at tokens whose gradient the clip takes away."""
    return ((ratio_M > 1 + clip_high) & (advantages_M > 0)) | ((ratio_M < 1 - clip_low) & (advantages_M < 0))


def kl_penalty(new_M: Tensor, reference_M: Tensor, weights_M: Tensor | None = None) -> Tensor:
    """Sum over tokens of w (log pi - log ref)^2 / 2, the k2 estimator: on tokens sampled from pi its gradient is that of KL(pi || ref).

    (Schulman 2020, "Approximating KL divergence"; gradients of the estimators as losses: 2510.01555.)
    """
    half = 0.5 * (new_M - reference_M).square()
    return (half if weights_M is None else half * weights_M).sum()


def kl_estimate(new_M: Tensor, reference_M: Tensor) -> Tensor:
    """Sum over tokens of ref/pi - 1 - log(ref/pi), the k3 estimator of KL(pi || ref): unbiased, never negative. For logging."""
    difference = (reference_M - new_M).detach()
    return (torch.expm1(difference) - difference).sum()
