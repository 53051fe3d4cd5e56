"""How much better an answer, or a token of it, was than expected: the estimators that tell policy-gradient methods apart.

    reward of an answer ─┬─ minus what the others of its group got ──→ group_advantages (GRPO), leave_one_out (RLOO)
                         ├─ minus a running mean ────────────────────→ REINFORCE with a baseline
                         └─ minus what a value head expected ────────→ generalised_advantages (PPO), a number for each token

None is the reward of an answer that nobody could judge: it gets advantage 0 and moves no mean. Letters: A answers, T places of the
longest answer (padded on the right), M real tokens.
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
    if flat(rewards):
        return [0.0] * len(rewards)
    known = [r for r in rewards if r is not None]
    mean = sum(known) / len(known)
    std = (sum((r - mean) ** 2 for r in known) / (len(known) - 1)) ** 0.5
    scale = 1.0 / (std + 1e-4) if divide_by_std else 1.0
    return [0.0 if r is None else (r - mean) * scale for r in rewards]


def leave_one_out(rewards: Sequence[float | None]) -> list[float]:
    """r_i minus the mean of the group's OTHER rewards (RLOO, 2402.14740): a baseline that does not hold the answer itself.

    A single reward has nothing to be compared with: 0.
    """
    known = [r for r in rewards if r is not None]
    if flat(rewards):
        return [0.0] * len(rewards)
    total, others = sum(known), len(known) - 1
    return [0.0 if r is None else r - (total - r) / others for r in rewards]


def flat(rewards: Sequence[float | None]) -> bool:
    """Whether a group says nothing about which answer was better: fewer than two rewards, or equal ones."""
    known = [r for r in rewards if r is not None]
    return len(known) < 2 or min(known) == max(known)  # exactly: a rounded mean would leave crumbs


def generalised_advantages(
    rewards_AT: Tensor, values_AT: Tensor, lengths_A: Tensor, *, discount: float = 1.0, decay: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (A, T), zero at padding, of answers that end at their last real token      (GAE, 1506.02438, eq. 16)

    delta_t = r_t + discount V(s_t+1) - V(s_t);   A_t = delta_t + discount decay A_t+1;   return_t = A_t + V(s_t)

    ``values_AT``: V of the state BEFORE token t is chosen; after the last token V is 0. What stands in padding is never looked at.
    """
    real_AT = torch.arange(rewards_AT.shape[1], device=rewards_AT.device)[None] < lengths_A[:, None]
    rewards, values = rewards_AT * real_AT, torch.where(real_AT, values_AT, 0.0)
    advantages = torch.zeros_like(values)
    after = next_value = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + discount * next_value - values[:, t]
        after = torch.where(real_AT[:, t], delta + discount * decay * after, 0.0)
        advantages[:, t], next_value = after, values[:, t]
    return advantages, torch.where(real_AT, advantages + values, 0.0)


def whiten(advantages_M: Tensor) -> Tensor:
    """(a - mean) / (std + 1e-8) over the real tokens of the whole batch, which are all that may be given: padding has no advantage.

    (The N+ Implementation Details of RLHF with PPO.) Fewer than two tokens have no spread: zeros.
    """
    if advantages_M.numel() < 2:
        return torch.zeros_like(advantages_M)
    return (advantages_M - advantages_M.mean()) / (advantages_M.std() + 1e-8)
