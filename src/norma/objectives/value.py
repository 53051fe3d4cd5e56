"""Learning what to expect: the value head's loss. Letters: M tokens of answers."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_value_loss(values_M: Tensor, old_M: Tensor, returns_M: Tensor, clip: float) -> Tensor:
    """Sum over tokens of max((V - R)^2, (clip(V, V_old +- clip) - R)^2) / 2      (the code of 1707.06347; N+ details of RLHF with PPO)

    The larger of the two: a value that has moved further than ``clip`` towards its return is not pulled any further.
    """
    near = old_M + (values_M - old_M).clamp(-clip, clip)
    return 0.5 * torch.maximum((values_M - returns_M).square(), (near - returns_M).square()).sum()


def explained_variance(values_M: Tensor, returns_M: Tensor) -> float:
    """1 - Var(R - V) / Var(R): 1 when the values foretell the returns, 0 when a constant does as well; 0 where all returns are equal."""
    spread = float(returns_M.double().var(correction=0)) if len(returns_M) else 0.0
    return 1.0 - float((returns_M - values_M).double().var(correction=0)) / spread if spread > 0 else 0.0
