"""Training the second half of a feed-forward layer on a CPU in bf16: z = y W^T + c of y = act(x + b), or y = act(g) u of x = (g, u).

    forward    y = act(x + b)          activation.cpp; y is used once and forgotten: of all that a block keeps it was the largest
               z = y W^T + c           as in linear.py
    backward   dy = dz W
               dx, db, y again         activation.cpp: dx wants act(x + b) half made anyway, so y costs no more than writing it
               dW = dz^T y, dc         as in linear.py

Letters: N tokens, F inner features, O features out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from norma.nn.kernels import linear


def activated_linear(x: Tensor, bias_F: Tensor | None, name: str, gated: bool, weight_OF: Tensor, bias_O: Tensor | None) -> Tensor:
    """act(x + bias) W^T + bias (..., O) of x (..., F); ``gated``: of x (..., 2 F), which has no bias. Both kernels must take these:
    :func:`norma.nn.kernels.activates` and :func:`norma.nn.kernels.linear.learns`.
    """
    out: Tensor = _ActivatedLinear.apply(x, bias_F, name, gated, weight_OF, bias_O)  # type: ignore[no-untyped-call]  # torch has no types
    return out


class _ActivatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, name: str, gated: bool, weight: Tensor, bias_out: Tensor | None) -> Tensor:
        working = weight.to(x.dtype)
        ctx.name, ctx.gated, ctx.types = name, gated, (weight.dtype, None if bias_out is None else bias_out.dtype)
        ctx.save_for_backward(x, bias, working)
        y = torch.ops.norma_cpu.gated(x, name) if gated else torch.ops.norma_cpu.activation(x, bias, name)
        return linear.forward(y, working, None if bias_out is None else bias_out.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, bias, weight = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])
        to_y = torch.mm(grad, weight).view(*x.shape[:-1], weight.shape[1])
        if ctx.gated:
            (to_x, y), to_bias = torch.ops.norma_cpu.gated_backward(to_y, x, ctx.name, True), None
        else:
            to_x, to_bias, y = torch.ops.norma_cpu.activation_backward(to_y, x, bias, ctx.name, True)
        del to_y
        kind, kind_out = ctx.types
        to_weight, to_out = torch.ops.norma_cpu.weight_gradient(grad, y.reshape(-1, weight.shape[1]), kind_out is not None)
        return (
            to_x,
            None if bias is None or to_bias is None else to_bias.to(bias.dtype),
            None,
            None,
            to_weight.to(kind),
            None if kind_out is None else to_out.to(kind_out),
        )
