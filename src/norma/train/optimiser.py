"""Which weights are moved by which rule.

Muon (Jordan et al. 2024; Liu et al., 2502.16982) for the matrices inside the blocks, AdamW (1711.05101) for embeddings, head,
norms and biases. AdamW is PyTorch's fused one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from norma.base.platform import working_dtype
from norma.train.muon import Muon
from norma.train.options import Schedule


def make_optimisers(
    model: nn.Module, *, kind: str, learning_rate: float, matrix_learning_rate: float, weight_decay: float, epsilon: float = 1e-8
) -> list[torch.optim.Optimizer]:
    """``adamw`` for everything, or ``muon`` for 2-D weights of blocks with AdamW for the rest."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    matrices = [p for n, p in named if kind == "muon" and p.dim() == 2 and ".blocks." in n]
    inside = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in inside]
    decayed, plain = [p for p in others if p.dim() >= 2], [p for p in others if p.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay, "name": "other matrices" if matrices else "matrices"},
        {"params": plain, "weight_decay": 0.0, "name": "norms and biases"},
    ]
    # epsilon is well below the size of gradients of small models unless a recipe says otherwise; betas as GPT-3 (2005.14165, appendix B).
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), eps=epsilon, fused=True)]
    if matrices:
        group: dict[str, Any] = {"params": matrices, "name": "matrices of blocks"}
        made.append(Muon([group], lr=matrix_learning_rate, weight_decay=weight_decay, dtype=working_dtype(matrices[0].device.type)))
    for optimiser in made:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return made


@dataclass(frozen=True)
class GroupRow:
    """One line of a table of parameter groups."""

    group: str
    rule: str
    tensors: int
    parameters: int
    learning_rate: float  # at its peak
    weight_decay: float

    def __str__(self) -> str:
        moved = f"{self.rule} {self.learning_rate:g}" + (f", decay {self.weight_decay:g}" if self.weight_decay else "")
        return f"{self.group} ({self.tensors} tensors, {self.parameters / 1e6:.2f} M): {moved}"


def group_rows(optimisers: list[torch.optim.Optimizer]) -> list[GroupRow]:
    """Which weights are moved how, a row for each group that has any."""
    return [
        GroupRow(
            group["name"],
            type(optimiser).__name__,
            len(group["params"]),
            sum(p.numel() for p in group["params"]),
            group["peak"],
            group["weight_decay"],
        )
        for optimiser in optimisers
        for group in optimiser.param_groups
        if group["params"]
    ]


def schedule_factor(step: int, *, steps: int, warmup: int, kind: Schedule, decay_share: float = 0.4, floor: float = 0.0) -> float:
    """The share of the peak learning rate at ``step`` (0-based).

    ``cosine``: to ``floor`` along half a cosine (1608.03983, eq. 5, one cycle). ``wsd``: linear warm-up, stable, then linear decay
    over the last ``decay_share`` of the steps (2404.06395).
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    if kind == "cosine":
        progress = (step - warmup) / max(1, steps - warmup)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
    decay = max(1, round(steps * decay_share))
    left = (steps - step) / decay
    return floor + (1 - floor) * min(1.0, left)


def set_learning_rate(optimisers: list[torch.optim.Optimizer], factor: float) -> None:
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * factor


def optimiser_tensors(model: nn.Module, optimisers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """All state of the optimisers as flat, named tensors: ``<parameter>/<entry>``."""
    names = {id(p): n for n, p in model.named_parameters()}
    flat: dict[str, Tensor] = {}
    for optimiser in optimisers:
        for parameter, state in optimiser.state.items():
            for key, value in state.items():
                flat[f"{names[id(parameter)]}/{key}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return flat


def restore_optimisers(model: nn.Module, optimisers: list[torch.optim.Optimizer], flat: dict[str, Tensor]) -> None:
    """The inverse of :func:`optimiser_tensors`; whatever the optimisers knew before is forgotten."""
    for optimiser in optimisers:
        optimiser.state.clear()
    owner = {id(p): o for o in optimisers for g in o.param_groups for p in g["params"]}
    parameters = dict(model.named_parameters())
    for name, tensor in flat.items():
        parameter_name, _, key = name.rpartition("/")
        parameter = parameters[parameter_name]
        state: dict[str, Any] = owner[id(parameter)].state[parameter]
        state[key] = tensor.to(parameter.device, copy=True)
