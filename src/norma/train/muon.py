"""Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal before they move the weights.

    gradient ─→ momentum (Nesterov) ─→ divided by its norm ─→ five Newton-Schulz steps ─→ x 0.2 sqrt(max(rows, columns)) ─→ weights

PyTorch's own iterates in bf16 wherever it runs. A CPU without bf16 arithmetic emulates it, about 30 times slower than fp32 (614 and
21 ms for a matrix of 256 x 768 on an EPYC with AVX2), so that a training step was mostly this. Here the type is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al.: the steepest quintic at 0 that stays bounded
ITERATIONS = 5
LEAST_NORM = 1e-7


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """``matrix`` (2-D) with all singular values brought near 1 (to about 0.7 to 1.2), computed and returned in ``dtype``."""
    a, b, c = COEFFICIENTS
    tall = matrix.size(0) > matrix.size(1)
    x = matrix.to(dtype)
    x = x.T if tall else x
    x = x / x.norm().clamp(min=LEAST_NORM)  # the spectral norm is at most this one
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Decoupled weight decay, and updates whose root mean square is AdamW's, about 0.2 (Liu et al., 2502.16982, section 2.2).

    Args:
        params: 2-D tensors, or groups of them.
        lr: the learning rate, in AdamW's units.
        dtype: of the iteration: bf16 where it is arithmetic, fp32 where it would be emulated.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        dtype: torch.dtype,
        momentum: float = 0.95,
    ) -> None:
        self.dtype = dtype
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient; no closure is called."""
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                mean = state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
                update = orthogonal(weight.grad.lerp(mean, momentum), self.dtype)
                weight.mul_(1 - rate * group["weight_decay"])
                weight.add_(update, alpha=-rate * 0.2 * max(weight.shape) ** 0.5)
