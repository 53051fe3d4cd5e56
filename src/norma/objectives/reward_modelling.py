"""Learning a reward from people's judgements: pairs of answers, scores of single answers, marks under each rule.

Every loss is a sum; divide it by the pairs, answers or marks of the whole step. A reward that is learnt from pairs is known up to a
constant, which ``centring`` holds near zero.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F


class Judged(NamedTuple):
    """Sums over a micro-batch, and what is worth logging."""

    loss: Tensor
    correct: Tensor  # pairs in order, or marks on the right side of zero
    margin: Tensor  # by how much: r_w - r_l of pairs, the signed score of marks


def bradley_terry(chosen_P: Tensor, rejected_P: Tensor, margin_P: Tensor | None = None, *, centring: float = 0.0) -> Judged:
    """L = -log sigmoid(r_w - r_l - m) + c (r_w + r_l)^2, the first term as softplus(m - (r_w - r_l)), which cannot overflow.

    (Bradley and Terry 1952; as a loss: Ouyang et al., 2203.02155, eq. 1; margin: Touvron et al., 2307.09288, eq. 2; centring: Eisenstein
    et al., 2312.09244, eq. 2.)

    Args:
        chosen_P, rejected_P: (P,) rewards of the better and the worse answer of each pair.
        margin_P: (P,) m, by how much more the better one is to be worth; None: 0.
        centring: c, weight of the term that holds the sum of the two near zero.
    """
    difference = chosen_P - rejected_P
    losses = F.softplus(-difference if margin_P is None else margin_P - difference)
    if centring:
        losses = losses + centring * (chosen_P + rejected_P).square()
    difference = difference.detach()
    return Judged(losses.sum(), (difference > 0).sum(), difference.sum())


def squared(scores_A: Tensor, targets_A: Tensor, desirable_A: Tensor) -> Judged:
    """Sum of (r - y)^2: the score that people gave, as it is.

    Args:
        scores_A, targets_A: (A,) what the model and people say of each answer.
        desirable_A: (A,) bool, whether the answer is a good one.
    """
    return _judged((scores_A - targets_A).square().sum(), scores_A, desirable_A)


def logistic(scores_A: Tensor, targets_A: Tensor, desirable_A: Tensor) -> Judged:
    """Sum of -y log sigmoid(r) - (1 - y) log sigmoid(-r) = softplus(r) - y r, y in [0, 1]: a mark, or the share of people who gave it."""
    return _judged((F.softplus(scores_A) - targets_A * scores_A).sum(), scores_A, desirable_A)


def rule_heads(scores_AK: Tensor, kept_AK: Tensor, marked_AK: Tensor) -> Judged:
    """:func:`logistic` over all marks there are, one logit a rule: an answer that nobody marked under a rule says nothing of it.

    Args:
        scores_AK: (A, K) logits of answers under K rules.
        kept_AK: (A, K) bool, whether the rule is kept; anything where there is no mark.
        marked_AK: (A, K) bool, whether there is a mark. Divide by their number in the whole step.
    """
    scores_M, kept_M = scores_AK[marked_AK], kept_AK[marked_AK]
    return logistic(scores_M, kept_M.to(scores_M.dtype), kept_M)


def _judged(loss: Tensor, scores: Tensor, desirable: Tensor) -> Judged:
    signed = scores.detach() * (2 * desirable.to(scores.dtype) - 1)
    return Judged(loss, (signed > 0).sum(), signed.sum())
