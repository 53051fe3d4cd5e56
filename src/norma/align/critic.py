"""PPO's value head: what reward the policy may still expect before it chooses each token.

    copy:    policy ─copied once─→ a backbone of its own ─→ head ─→ V(s)
    shared:  policy's own hidden states ─→ head ─→ V(s)               (its gradient reaches the policy's weights)

``Learner`` is what the training loop moves: the policy, and the critic where there is one.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from norma.base.ranks import Ranks
from norma.nn import Transformer
from norma.train.spread import collect, spread, whole


class Critic(nn.Module):
    """V(s) as a linear function of hidden states: of a backbone of its own, or (None) of the policy's."""

    def __init__(self, backbone: Transformer | None, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    @staticmethod
    def of(policy: Transformer, *, shared: bool) -> Critic:
        """A new one for ``policy``. It begins at 0 everywhere, which is what a centred reward is on average.

        A copy learns what the policy learns: all of its weights, or a LoRA of its own beside frozen ones.
        """
        backbone = None if shared else copy.deepcopy(policy)
        if backbone is not None:
            backbone.head = None  # it scores no tokens
        head = nn.Linear(policy.config.width, 1)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return Critic(backbone, head.to(policy.device))

    def forward(self, states_MW: Tensor) -> Tensor:
        """(M,) fp32 values, in units of the reward, of hidden states."""
        out: Tensor = self.head(states_MW.float())
        return out.squeeze(-1)


class Learner(nn.Module):
    """Policy and critic under one roof, for the optimiser and the checkpoints."""

    def __init__(self, policy: Transformer, critic: Critic | None) -> None:
        super().__init__()
        self.policy, self.critic = policy, critic


def spread_learner(policy: Transformer, critic: Critic | None, ranks: Ranks) -> Learner:
    """What this rank trains: the models themselves when it is alone, else copies of which each rank holds a part."""
    if ranks.count == 1 or critic is None:
        return Learner(spread(policy, ranks), critic)
    from torch.distributed.fsdp import fully_shard

    head = copy.deepcopy(critic.head)
    fully_shard(head)
    backbone = None if critic.backbone is None else spread(critic.backbone, ranks)
    return Learner(spread(policy, ranks), Critic(backbone, head))


@torch.no_grad()
def collect_learner(parts: Learner, policy: Transformer, critic: Critic | None, ranks: Ranks) -> None:
    """Put what the ranks have trained back into the models, whole, on every rank."""
    collect(parts.policy, policy, ranks)
    if critic is None or parts.critic is None or parts.critic is critic:
        return
    if critic.backbone is not None and parts.critic.backbone is not None:
        collect(parts.critic.backbone, critic.backbone, ranks)
    for into, part in zip(critic.head.parameters(), parts.critic.head.parameters(), strict=True):
        into.copy_(whole(part))
