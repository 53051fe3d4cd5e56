"""Learning from comparisons and marks of answers, without a reward model.

    pairs   dpo, ipo      how much more the policy has raised the better answer than the worse, seen from a frozen reference
            orpo, simpo   how much likelier a token of the better answer is, without a reference
    marks   kto           each answer by itself: desirable or not, against what is usual (z0)
            unlikelihood  undesirable tokens are made unlikely
            weighted      answers count by their scores

Letters: P pairs, A answers, M tokens. log p is in nats, fp32, of whole answers unless it says "mean". Every loss is a sum: the caller
divides by the count of the whole step, and what belongs to the whole batch (z0) is an argument; so micro-batches and ranks change nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

CERTAIN = 1e-6  # 1 - p is not taken to be smaller: in fp32 it is noise there


class Compared(NamedTuple):
    """The loss, summed, and the implicit rewards of each answer, (P,) without gradient."""

    loss: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor


class Marked(NamedTuple):
    """The loss, summed, and the implicit reward of each answer, (A,) without gradient."""

    loss: Tensor
    reward: Tensor


def dpo(
    chosen_P: Tensor, rejected_P: Tensor, reference_chosen_P: Tensor, reference_rejected_P: Tensor, *, beta: float, smoothing: float = 0.0
) -> Compared:
    """L = -log sigmoid(beta [(log pi/ref)(y_w) - (log pi/ref)(y_l)])      (Rafailov et al., 2305.18290, eq. 7)

    Args:
        chosen_P, rejected_P: log p of the better and the worse answer under the policy.
        reference_chosen_P, reference_rejected_P: the same under the frozen reference.
        beta: strength of the leash to the reference.
        smoothing: share of pairs believed to be swapped (conservative DPO; Mitchell 2023, "A note on DPO with noisy preferences", eq. 3).
    """
    chosen, rejected = beta * (chosen_P - reference_chosen_P), beta * (rejected_P - reference_rejected_P)
    margin = chosen - rejected
    losses = -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)
    return Compared(losses.sum(), chosen.detach(), rejected.detach())


def ipo(
    chosen_P: Tensor,
    rejected_P: Tensor,
    reference_chosen_P: Tensor,
    reference_rejected_P: Tensor,
    chosen_tokens_P: Tensor,
    rejected_tokens_P: Tensor,
    *,
    beta: float,
) -> Compared:
    """L = (h - 1 / (2 beta))^2,  h = (log pi/ref)(y_w) / |y_w| - (log pi/ref)(y_l) / |y_l|      (Azar et al., 2310.12036, eq. 17)

    The paper's h sums over tokens; its published numbers were made with the mean over each answer's tokens (as TRL has it from the
    authors), without which 1 / (2 beta) would mean another thing for every length.
    """
    chosen = (chosen_P - reference_chosen_P) / chosen_tokens_P
    rejected = (rejected_P - reference_rejected_P) / rejected_tokens_P
    losses = (chosen - rejected - 1 / (2 * beta)).square()
    return Compared(losses.sum(), beta * chosen.detach(), beta * rejected.detach())


def orpo(chosen_mean_P: Tensor, rejected_mean_P: Tensor, *, beta: float) -> Compared:
    """L_OR = -log sigmoid(log odds(y_w) - log odds(y_l)),  odds = p / (1 - p)      (Hong et al., 2403.07691, eq. 4 and 7)

    ``..._mean``: mean log p of a token, so that p is the geometric mean. ``beta`` (lambda in the paper) weighs the loss, to which the
    caller adds the negative log-likelihood of the better answer (eq. 6).
    """
    odds = (chosen_mean_P - log_complement(chosen_mean_P)) - (rejected_mean_P - log_complement(rejected_mean_P))
    return Compared(-beta * F.logsigmoid(odds).sum(), beta * chosen_mean_P.detach(), beta * rejected_mean_P.detach())


def simpo(chosen_mean_P: Tensor, rejected_mean_P: Tensor, *, beta: float, margin: float) -> Compared:
    """L = -log sigmoid(beta (mean log p(y_w) - mean log p(y_l)) - gamma),  gamma = ``margin``      (Meng et al., 2405.14734, eq. 6)"""
    chosen, rejected = beta * chosen_mean_P, beta * rejected_mean_P
    return Compared(-F.logsigmoid(chosen - rejected - margin).sum(), chosen.detach(), rejected.detach())


def kto(
    logp_A: Tensor, reference_A: Tensor, desirable_A: Tensor, z0: float, *, beta: float, desirable_weight: float, undesirable_weight: float
) -> Marked:
    """L = lambda_y - v(x, y),  v = lambda_D sigmoid(beta (r - z0)) or lambda_U sigmoid(beta (z0 - r)),  r = (log pi/ref)(y)

    (Ethayarajh et al., 2402.01306, eq. 8)

    Args:
        desirable_A: bool.
        z0: what is usual, of the whole step's batch (:func:`kto_baseline`).
    """
    ratio = logp_A - reference_A
    value = torch.where(desirable_A, torch.sigmoid(beta * (ratio - z0)), torch.sigmoid(beta * (z0 - ratio)))
    weight = torch.where(desirable_A, logp_A.new_tensor(desirable_weight), logp_A.new_tensor(undesirable_weight))
    return Marked((weight * (1 - value)).sum(), beta * ratio.detach())


def kto_baseline(ratios: float, count: int) -> float:
    """z0 = max(0, (1/m) sum_i log (pi/ref)(y_j | x_i)),  j not i: a KL that is never below 0      (2402.01306, 4.2)

    Args:
        ratios: the sum of log pi/ref over the step's mismatched answers, of all micro-batches and ranks.
        count: how many they are.
    """
    return max(0.0, ratios / count)


def unlikelihood(logp_M: Tensor) -> Tensor:
    """-sum_t log(1 - p(y_t)) over the tokens of undesirable answers      (Welleck et al., 1908.04319, eq. 4)

    The value is made with 1 - p >= ``CERTAIN``, and so is the slope p / (1 - p), which does not vanish there: what the model is surest
    of has the most to unlearn.
    """
    complement = log_complement(logp_M.detach())
    slope = logp_M.detach().exp() * (-complement).exp()
    return (-complement + slope * (logp_M - logp_M.detach())).sum()


def weighted_likelihood(logp_A: Tensor, weights_A: Tensor) -> Tensor:
    """-sum_i w_i log p(y_i): supervision that counts answers by their scores (reward-weighted regression; Peters and Schaal 2007)."""
    return -(weights_A * logp_A).sum()


def log_complement(logp: Tensor) -> Tensor:
    """log(1 - p) of log p, exact at both ends; p is taken to be at most 1 - ``CERTAIN``."""
    logp = logp.clamp(max=math.log1p(-CERTAIN))
    return torch.where(logp > -math.log(2), torch.log(-torch.expm1(logp)), torch.log1p(-torch.exp(logp)))
