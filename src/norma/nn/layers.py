"""The two layers everything is made of. Weights are kept in fp32; they work in the type of what flows through them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """y = x W^T + b, computed in the type of ``x`` (bf16 activations with fp32 master weights, as mixed precision has it)."""

    working: Tensor | None = None  # the weight in the working type while `working_weights` holds

    def forward(self, x: Tensor) -> Tensor:
        weight = self.working if self.working is not None else self.weight.to(x.dtype)
        return F.linear(x, weight, None if self.bias is None else self.bias.to(x.dtype))


@contextmanager
def working_weights(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Convert every linear weight to ``dtype`` once, for many forward passes without gradients (generation)."""
    linears = [m for m in model.modules() if isinstance(m, Linear)]
    try:
        for linear in linears:
            linear.working = linear.weight.detach().to(dtype)
        yield
    finally:
        for linear in linears:
            linear.working = None


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich, 1910.07467, eq. 4); the mean is taken in fp32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)
