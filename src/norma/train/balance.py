"""Even loads of experts without a loss: after each step the bias of the choice moves, by what all ranks have counted.

    forward passes of a step ─→ each sparse layer's tally ─→ sum over ranks ─→ bias + u * sign(mean load - load)

"Auxiliary-loss-free load balancing" (Wang et al., 2408.15664, algorithm 1); layers whose experts have ``balance_bias``.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from norma.base.ranks import Ranks
from norma.nn.experts import ExpertFeedForward, balance_step

RATE = 0.001  # u in the paper, the best of those it tries


def reset(model: nn.Module) -> None:
    """Count anew: a step begins."""
    for layer in _layers(model):
        layer.tally = None


def balance(model: nn.Module, ranks: Ranks) -> None:
    """A step has counted: move the biases, on every rank alike."""
    layers = list(_layers(model))
    if not layers:
        return
    own = [[0] * layer.experts.count if layer.tally is None else layer.tally.tolist() for layer in layers]
    for layer, *counts in zip(layers, *ranks.gather(own), strict=True):
        load = torch.tensor(counts).sum(dim=0)
        balance_step(layer, RATE, load.to(layer.up.device))


def _layers(model: nn.Module) -> Iterator[ExpertFeedForward]:
    return (m for m in model.modules() if isinstance(m, ExpertFeedForward) and m.balance is not None)
