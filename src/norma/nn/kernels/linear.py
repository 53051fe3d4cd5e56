"""Training linear layers on a CPU in bf16: y = x W^T + b, whose gradient by W and b is one operator of our own (weight_gradient.cpp).

    forward    y  = x W^T + b      oneDNN adds the bias while it writes (PyTorch's own way copies it into y first, and reads that again)
    backward   dx = dy W           PyTorch's product
               dW = dy^T x, db = column sums of dy: weight_gradient.cpp, in fp32 as the weights are kept: nothing is rounded in between

Letters: N tokens, I features in, O features out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from norma.nn import kernels

ROWS = 512  # tokens from which laying out both operands anew pays


def learns(x: Tensor, weight: Tensor) -> bool:
    """Whether a weight that reads ``x`` (..., I) is trained by :func:`linear`: many tokens in bf16 on a CPU, nothing spread over ranks."""
    if x.device.type != "cpu" or x.dtype != torch.bfloat16 or not (torch.is_grad_enabled() and weight.requires_grad):
        return False
    if type(weight) not in (nn.Parameter, Tensor) or x.numel() < ROWS * x.shape[-1]:
        return False
    built: bool = kernels.ready(x.dtype)
    return built


def linear(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor:
    """x W^T + b, (..., O) in the type of ``x`` (..., I), for weights (O, I) that are one above the other; all have biases (O,) or none."""
    given = [bias for bias in biases if bias is not None]
    out: Tensor = _Linear.apply(x, len(weights), *weights, *given)  # type: ignore[no-untyped-call]  # torch has no types here
    return out


def forward(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """x W^T + b, all of one type, without a way back."""
    if torch.compiler.is_compiling():  # the bias is then added by whatever reads the product
        made = torch.mm(x.reshape(-1, x.shape[-1]), weight_OI.t()).view(*x.shape[:-1], -1)
        return made if bias_O is None else made + bias_O
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")
    return out


def adds(to_OI: Tensor, grad_NO: Tensor) -> bool:
    """Whether :func:`add_weight_gradient` takes these, and has been built."""
    if type(to_OI) is not Tensor or to_OI.dtype != torch.float32 or not to_OI.is_contiguous() or to_OI.device.type != "cpu":
        return False
    built: bool = grad_NO.dtype == torch.bfloat16 and kernels.ready(torch.bfloat16)
    return built


def add_weight_gradient(to_OI: Tensor, grad_NO: Tensor, x_NI: Tensor) -> None:
    """to += grad^T x, where ``to`` is fp32 and the others are bf16."""
    torch.ops.norma_cpu.add_weight_gradient(to_OI, grad_NO, x_NI)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int, *parameters: Tensor) -> Tensor:
        weight = _joined(parameters[:count], x.dtype)
        bias = _joined(parameters[count:], x.dtype) if len(parameters) > count else None
        ctx.count, ctx.like = count, [(len(p), p.dtype) for p in parameters]
        ctx.save_for_backward(x, weight)
        return forward(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].reshape(-1, weight.shape[0])
        to_x = torch.mm(grad, weight).view(x.shape) if ctx.needs_input_grad[0] else None
        sum_too = any(ctx.needs_input_grad[2 + ctx.count :])
        whole = torch.ops.norma_cpu.weight_gradient(grad, x.reshape(-1, weight.shape[1]), sum_too)
        to, row = [], 0
        for k, (rows, dtype) in enumerate(ctx.like):
            row = 0 if k == ctx.count else row
            part = whole[int(k >= ctx.count)][row : row + rows]
            to.append(part.to(dtype) if ctx.needs_input_grad[2 + k] else None)
            row += rows
        return to_x, None, *to


def _joined(parameters: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    converted = [p.to(dtype) for p in parameters]
    return converted[0] if len(converted) == 1 else torch.cat(converted)
