"""From a rollout's rewards to the advantage of every token: the one place where methods differ in what they learn from.

    rewards of answers, leash in the reward ─→ estimator (group, leave-one-out, baseline, value) ─→ advantages (M,) ─→ whitened, perhaps

All of it is made for the whole rollout, before it is divided into minibatches, micro-batches and ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from norma.align.policy_options import PolicyOptions
from norma.align.rollout import Rollout
from norma.objectives.advantages import generalised_advantages, group_advantages, leave_one_out, whiten
from norma.objectives.shaping import token_rewards


def assign(rollout: Rollout, options: PolicyOptions, *, coefficient: float, baseline: float) -> None:
    """Write ``advantages`` (and, with a critic, ``returns``) of every token into ``rollout.tokens``.

    Args:
        coefficient: of the leash in the reward, 0 where it is in the loss; needs ``old`` and ``reference``.
        baseline: the running mean of the reward (``advantage: baseline``).
    """
    if not rollout.groups:
        rollout.tokens["advantages"] = torch.zeros(0)
        return
    lengths = rollout.lengths_A
    if options.advantage == "value":
        old = rollout.padded(rollout.tokens["old"])
        reference = rollout.padded(rollout.tokens.get("reference", rollout.tokens["old"]))
        shaped = token_rewards(rollout.rewards_A.float(), old, reference, lengths, coefficient)
        discount, decay = options.value.discount, options.value.decay
        values = rollout.padded(rollout.tokens["values"])
        advantages, returns = generalised_advantages(shaped, values, lengths, discount=discount, decay=decay)
        rollout.tokens |= {"advantages": rollout.flat(advantages), "returns": rollout.flat(returns)}
    else:
        answers = torch.tensor(_answer_advantages(rollout, _leashed(rollout, coefficient), options, baseline), dtype=torch.float32)
        rollout.tokens["advantages"] = answers.repeat_interleave(lengths)
    if options.whiten:
        rollout.tokens["advantages"] = whiten(rollout.tokens["advantages"])


def _leashed(rollout: Rollout, coefficient: float) -> Tensor:
    """(A,) rewards minus the leash summed over each answer."""
    if not coefficient:
        return rollout.rewards_A
    drift = rollout.padded(rollout.tokens["old"] - rollout.tokens["reference"]).sum(1)
    return rollout.rewards_A - coefficient * drift


def _answer_advantages(rollout: Rollout, rewards_A: Tensor, options: PolicyOptions, baseline: float) -> list[float]:
    """One advantage an answer."""
    values = rewards_A.tolist()
    if options.advantage == "baseline":
        return [value - baseline for value in values]
    found: list[float] = []
    for group in rollout.groups:
        own = values[len(found) : len(found) + len(group.answers)]
        found += leave_one_out(own) if options.advantage == "leave-one-out" else group_advantages(own, divide_by_std=options.divide_by_std)
    return found
