"""One matrix product for each group of rows, all in one call: what experts are made of.

    x_NI sorted by group ─┐
    weight_EOI            ├─→ y_NO: row n of group e is  x[n] W[e]^T
    counts_E              ┘

Sizes: N rows, E groups, I features in, O features out.

There is one seam, :func:`grouped_matmul`, and behind it PyTorch's grouped product, or where that has no kernel (fp64, rows that are not
a multiple of 16 bytes, other devices) one batched product over groups that are filled up with zeros to the longest. Milliseconds at
E=8, N=4096, I=256, O=512 on one core of an EPYC Zen 4, forward / backward:

                                  fp32, even groups   fp32, half the rows in one   bf16, even    bf16, half in one
    grouped (torch 2.13)             12.8 / 25.3             12.6 / 25.2            5.5 / 11.5      5.8 / 11.4
    filled up and batched            14.9 / 27.7             68.8 / 114.1           6.8 / 14.6     28.9 / 55.7
    a Python loop over groups        13.2 / 25.1             13.1 / 25.2            5.8 / 11.7      6.2 / 12.0
    one dense product, same size     12.0 / 24.7             11.9 / 24.6            5.1 / 11.0      5.0 / 11.1

Both are hidden from ``torch.compile`` in two operators of our own, because it refuses PyTorch's grouped product in any type but bf16
(seen with 2.13) and could not know the longest group. Without compilation that costs 13 (no gradients) to 29 microseconds a call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import register_flop_formula


def grouped_matmul(x_NI: Tensor, weight_EOI: Tensor, counts_E: Tensor) -> Tensor:
    """The product of every row with the matrix of its group.

    Args:
        x_NI: rows, those of group 0 first, then those of group 1, ...
        weight_EOI: a matrix for each group, in the type of ``x``.
        counts_E: int64, rows of each group; some may be 0, together they are N.

    Returns:
        (N, O) in the type of ``x``. Gradients reach ``x`` and ``weight``.
    """
    out: Tensor = _product(x_NI, weight_EOI, counts_E)
    return out


@torch.library.custom_op("norma::grouped_product", mutates_args=())
def _product(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """(N, I), (E, O, I) → (N, O)."""
    x = _dense(x)
    if _native(x, weight.shape[1]):
        return F.grouped_mm(x, weight.transpose(1, 2), offs=_ends(counts))
    filled, slots = _fill(x, counts)
    return torch.bmm(filled, weight.transpose(1, 2)).flatten(0, 1).index_select(0, slots)


@torch.library.custom_op("norma::grouped_outer", mutates_args=())
def _outer(y: Tensor, x: Tensor, counts: Tensor) -> Tensor:
    """(N, O), (N, I) → (E, O, I): the sum over each group's rows of their outer products, the gradient of the weights."""
    y, x = _dense(y), _dense(x)
    if _native(x, y.shape[1]):
        return F.grouped_mm(y.t(), x, offs=_ends(counts))
    return torch.bmm(_fill(y, counts)[0].transpose(1, 2), _fill(x, counts)[0])


def _native(x: Tensor, features: int) -> bool:
    """Whether PyTorch has a kernel for rows such as ``x`` that become ``features`` long."""
    if x.dtype not in (torch.float32, torch.bfloat16, torch.float16) or not len(x):
        return False
    if any(size * x.element_size() % 16 for size in (x.shape[1], features)):
        return False
    return x.device.type == "cpu" or (x.device.type == "cuda" and torch.cuda.get_device_capability(x.device) >= (8, 0))


def _dense(x: Tensor) -> Tensor:
    """The same rows, each really after the other: the gradient of a sum is one number seen everywhere, which the kernels refuse."""
    return x.contiguous().view(-1).view(x.shape)  # the views mend the strides of a single row, which contiguous() takes for good


def _ends(counts: Tensor) -> Tensor:
    return counts.cumsum(0).to(torch.int32)


def _fill(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The groups one above the other, zeros after the shorter ones (E, longest, I), and where row n went (N,), counted over both axes."""
    longest = int(counts.max())
    group = torch.repeat_interleave(counts, output_size=len(x))
    starts = counts.cumsum(0) - counts
    slots = torch.arange(len(x), device=x.device) + (longest * torch.arange(len(counts), device=x.device) - starts)[group]
    filled = x.new_zeros(len(counts) * longest, x.shape[1]).index_copy(0, slots, x)
    return filled.view(len(counts), longest, x.shape[1]), slots


@_product.register_fake
def _(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


@_outer.register_fake
def _(y: Tensor, x: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty(counts.shape[0], y.shape[1], x.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x, weight, counts = ctx.saved_tensors
    to_x = _product(grad, weight.transpose(1, 2), counts) if ctx.needs_input_grad[0] else None
    to_weight = _outer(grad, x, counts) if ctx.needs_input_grad[1] else None
    return to_x, to_weight, None


_product.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.norma.grouped_product)
def _product_flops(x: tuple[int, ...], weight: tuple[int, ...], counts: tuple[int, ...], **rest: object) -> int:
    return 2 * x[0] * weight[1] * weight[2]


@register_flop_formula(torch.ops.norma.grouped_outer)
def _outer_flops(y: tuple[int, ...], x: tuple[int, ...], counts: tuple[int, ...], **rest: object) -> int:
    return 2 * x[0] * x[1] * y[1]
