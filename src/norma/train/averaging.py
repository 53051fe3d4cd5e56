"""A running average of the weights: exponential moving average (1412.6980, section 7.2).

weights after each update ─→ average = d average + (1 - d) weights ─→ saved with every checkpoint ─→ copied into the model at the end
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Averages of the weights that are trained, in fp32 whatever the weights' own type.

    The decay of update n (from 0) is min(decay, (1 + n) / (10 + n)), as TensorFlow's ExponentialMovingAverage has it: the first
    weights, which are random, are forgotten soon, and a short run has an average worth having.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.tensors = {n: p.detach().to(torch.float32, copy=True) for n, p in model.named_parameters() if p.requires_grad}

    def update(self, model: nn.Module) -> None:
        """Take in the weights as they are now."""
        average = get_ema_multi_avg_fn(min(self.decay, (1 + self.updates) / (10 + self.updates)))  # type: ignore[no-untyped-call]
        weights = dict(model.named_parameters())
        average(list(self.tensors.values()), [weights[n].detach().float() for n in self.tensors], self.updates)
        self.updates += 1

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Put the averages in the place of the model's weights."""
        weights = dict(model.named_parameters())
        for name, tensor in self.tensors.items():
            weights[name].copy_(tensor)

    def restore(self, tensors: dict[str, Tensor], updates: int) -> None:
        """Go back to saved averages."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
        self.updates = updates
