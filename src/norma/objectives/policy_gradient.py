"""The founding text's norm loss L = -E_{x, y ~ p_theta}[R(x, y)], by policy gradient with a leash to a reference.

Letters: G answers of one group (one question), M tokens of answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def group_advantages(rewards: Sequence[float | None], *, divide_by_std: bool = True) -> list[float]:
    """(r - mean) / (std + 1e-4) within one group of answers (GRPO, 2402.03300, 4.1.2; without std: Dr. GRPO, 2503.20783).

    Answers without a reward (None: a checker failed or was unsure) get advantage 0 and leave mean and std alone.
    A group with fewer than two rewards, or with equal ones, teaches nothing: all zeros.
    """
    known = [r for r in rewards if r is not None]
    if len(known) < 2 or min(known) == max(known):  # exactly: a rounded mean would leave crumbs
        return [0.0] * len(rewards)
    mean = sum(known) / len(known)
    std = (sum((r - mean) ** 2 for r in known) / (len(known) - 1)) ** 0.5
    scale = 1.0 / (std + 1e-4) if divide_by_std else 1.0
    return [0.0 if r is None else (r - mean) * scale for r in rewards]


def clipped_policy_loss(new_M: Tensor, old_M: Tensor, advantages_M: Tensor, *, clip_low: float = 0.2, clip_high: float = 0.28) -> Tensor:
    """Sum over tokens of -min(ratio A, clip(ratio) A), ratio = pi/pi_old      (PPO, 1707.06347, eq. 7; high clip: DAPO, 2503.14476)

    Divide by the answer tokens of the whole step. ``old_M`` must come from the trainer's own forward pass; with ``old = new.detach()``
    the ratio is one and the gradient is REINFORCE's.
    """
    ratio = torch.exp(new_M - old_M)
    return -torch.minimum(ratio * advantages_M, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages_M).sum()


def kl_penalty(new_M: Tensor, reference_M: Tensor) -> Tensor:
    """Sum over tokens of (log pi - log ref)^2 / 2, the k2 estimator: on tokens sampled from pi its gradient is that of KL(pi || ref).

    (Schulman 2020, "Approximating KL divergence"; gradients of the estimators as losses: 2510.01555.)
    """
    return 0.5 * (new_M - reference_M).square().sum()


def kl_estimate(new_M: Tensor, reference_M: Tensor) -> Tensor:
    """Sum over tokens of ref/pi - 1 - log(ref/pi), the k3 estimator of KL(pi || ref): unbiased, never negative. For logging."""
    difference = (reference_M - new_M).detach()
    return (torch.expm1(difference) - difference).sum()
