"""What is taken off the reward before it becomes an advantage: the leash in the reward, and answers that run too long.

Letters: A answers, T places of the longest answer (padded on the right).
"""

from __future__ import annotations

import torch
from torch import Tensor


def token_rewards(rewards_A: Tensor, old_AT: Tensor, reference_AT: Tensor, lengths_A: Tensor, coefficient: float) -> Tensor:
    """(A, T) -beta (log pi_old - log ref) at every real token, plus the answer's reward at its last one   (InstructGPT, 2203.02155, eq. 2)

    The difference is the k1 estimator; within the reward it is unbiased (2510.01555). The last real token is the end token where there
    is one; whatever the padding, nothing falls on it.
    """
    places = torch.arange(old_AT.shape[1], device=old_AT.device)[None]
    shaped = torch.where(places < lengths_A[:, None], -coefficient * (old_AT - reference_AT), 0.0)
    return shaped + (places == lengths_A[:, None] - 1) * rewards_A[:, None]


def overlong_penalty(tokens: int, most: int, buffer: int) -> float:
    """0 up to ``most`` - ``buffer`` tokens, then falling evenly to -1 at ``most``      (DAPO, 2503.14476, eq. 13)"""
    return -min(1.0, max(0.0, (tokens - (most - buffer)) / buffer)) if buffer else 0.0


def adapted_coefficient(coefficient: float, kl: float, target: float, *, gain: float = 0.1, most: float = 0.2) -> float:
    """beta (1 + gain e), e = (kl / target - 1) within +-``most``: a leash that grows while the policy is too far away.

    (Ziegler et al., 1909.08593, section 2.2.)
    """
    return coefficient * (1.0 + gain * min(most, max(-most, kl / target - 1.0)))


def running_mean(mean: float | None, value: float, decay: float) -> float:
    """decay mean + (1 - decay) value; the first value is the mean."""
    return value if mean is None else decay * mean + (1.0 - decay) * value
