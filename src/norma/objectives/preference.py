"""Direct preference optimisation: pairs of answers, one better, without a reward model."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class DPO(NamedTuple):
    """Sums over the pairs of a micro-batch (divide by the pairs of the whole step), and what is worth logging."""

    loss: Tensor
    chosen_reward: Tensor  # beta * log(pi/ref) of the chosen answers, summed
    rejected_reward: Tensor
    correct: Tensor  # pairs whose chosen answer has the larger implicit reward


def dpo(
    chosen_P: Tensor, rejected_P: Tensor, reference_chosen_P: Tensor, reference_rejected_P: Tensor, *, beta: float, smoothing: float = 0.0
) -> DPO:
    """L = -log sigmoid(beta [(log pi/ref)(y_w) - (log pi/ref)(y_l)])      (Rafailov et al., 2305.18290, eq. 7)

    Args:
        chosen_P, rejected_P: (P,) log-probability of whole answers under the policy, in nats.
        reference_chosen_P, reference_rejected_P: the same under the frozen reference.
        beta: strength of the leash to the reference.
        smoothing: share of pairs believed to be swapped (conservative DPO; Mitchell 2023).
    """
    chosen, rejected = beta * (chosen_P - reference_chosen_P), beta * (rejected_P - reference_rejected_P)
    margin = chosen - rejected
    losses = -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)
    return DPO(losses.sum(), chosen.detach().sum(), rejected.detach().sum(), (margin.detach() > 0).sum())
