"""Grouped products against one product a group, with PyTorch's kernel and without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from norma.nn.grouped import grouped_matmul


def parts(dtype: torch.dtype, counts: list[int], inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(sum(counts), inputs, generator=random).to(dtype).requires_grad_()
    weight = torch.randn(len(counts), outputs, inputs, generator=random).to(dtype).requires_grad_()
    return x, weight, torch.tensor(counts)


def loop(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    return torch.cat([F.linear(rows, matrix) for rows, matrix in zip(x.split(counts.tolist()), weight, strict=True)])


@pytest.mark.parametrize("counts", [[3, 0, 5, 1], [0, 0, 7, 0], [4], [0, 1], [0, 0]])
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 16), (16, 8), (7, 8), (8, 5), (3, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_equals_a_loop_over_groups(dtype: torch.dtype, counts: list[int], inputs: int, outputs: int) -> None:
    x, weight, count = parts(dtype, counts, inputs, outputs)
    ours, theirs = grouped_matmul(x, weight, count), loop(x, weight, count)
    close: dict[str, Any] = {"rtol": 1e-5, "atol": 5e-5} if dtype == torch.float32 else {}
    torch.testing.assert_close(ours, theirs, **close)
    for reduce in (Tensor.sum, lambda y: y.sum(dim=0).square().sum(), lambda y: y.sum(dim=1).square().sum()):
        torch.testing.assert_close(
            torch.autograd.grad(reduce(ours), (x, weight), retain_graph=True),
            torch.autograd.grad(reduce(theirs), (x, weight), retain_graph=True),
            **close,
        )


def test_gradients_equal_finite_differences() -> None:
    x, weight, count = parts(torch.float64, [2, 0, 3], 3, 4)
    assert torch.autograd.gradcheck(lambda a, b: grouped_matmul(a, b, count), (x, weight))


@pytest.mark.parametrize("inputs", [8, 7])
def test_the_operators_are_what_they_tell_the_compiler(inputs: int) -> None:
    x, weight, count = parts(torch.float32, [3, 0, 5], inputs, 12)
    torch.library.opcheck(torch.ops.norma.grouped_product.default, (x, weight, count))
    torch.library.opcheck(torch.ops.norma.grouped_outer.default, (torch.randn(8, 12), x.detach(), count))


def test_operations_are_counted() -> None:
    x, weight, count = parts(torch.float32, [3, 0, 5], 8, 12)
    with FlopCounterMode(display=False) as counter:
        grouped_matmul(x, weight, count).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 8 * 8 * 12
