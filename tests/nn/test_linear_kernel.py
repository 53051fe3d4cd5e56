"""Training linear layers by the CPU's own weight gradient: against fp64, and what must hold around it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from norma.nn import kernels
from norma.nn.kernels import build
from norma.nn.kernels.linear import ROWS, adds, learns
from norma.nn.layers import Linear, together

needs_kernel = pytest.mark.skipif(
    build.refused() is not None or not kernels.takes_bf16(), reason=f"no kernel for bf16 here: {build.refused() or 'this CPU has no bf16'}"
)


def pair(N: int, out: int, wide: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(N, out, generator=random).bfloat16(), torch.randn(N, wide, generator=random).bfloat16()


def distance(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


@needs_kernel
@settings(max_examples=30, deadline=None)
@given(N=st.integers(1, 1200), out=st.integers(1, 450), wide=st.integers(1, 450), seed=st.integers(0, 9))
def test_equals_the_product_in_fp64(N: int, out: int, wide: int, seed: int) -> None:
    """Products of bf16 are exact in fp32, so only the summing rounds: within 2e-6 of the sums' scale, for any sizes."""
    assert kernels.state() is None
    grad, x = pair(N, out, wide, seed)
    to, sums = torch.ops.norma_cpu.weight_gradient(grad, x, True)
    truth = grad.double().t() @ x.double()
    scale = grad.double().abs().t() @ x.double().abs()
    assert float(((to - truth).abs() / scale).max()) < 2e-6
    assert float(((sums - grad.double().sum(0)).abs() / grad.double().abs().sum(0)).max()) < 2e-6
    start = torch.ones(out, wide)
    torch.ops.norma_cpu.add_weight_gradient(start, grad, x)
    assert float(((start - 1 - truth).abs() / (scale + 1)).max()) < 2e-6


@needs_kernel
def test_bits_do_not_depend_on_threads() -> None:
    """More threads than tiles make tiles smaller; what each number is a sum of, and in which order, stays."""
    assert kernels.state() is None
    grad, x = pair(1111, 800, 390)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 9, 40):
            torch.set_num_threads(count)
            found.append(torch.ops.norma_cpu.weight_gradient(grad, x, True))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for again in found[1:] for a, b in zip(found[0], again, strict=True))


@needs_kernel
def test_operators_are_declared_as_they_are() -> None:
    assert kernels.state() is None
    grad, x = pair(70, 40, 33)
    torch.library.opcheck(torch.ops.norma_cpu.weight_gradient, (grad, x, True))
    torch.library.opcheck(torch.ops.norma_cpu.weight_gradient, (grad, x, False))
    torch.library.opcheck(torch.ops.norma_cpu.add_weight_gradient, (torch.zeros(40, 33), grad, x))


@needs_kernel
def test_bad_input_is_refused() -> None:
    assert kernels.state() is None
    grad, x = pair(70, 40, 33)
    for bad in ((grad, x[:69]), (grad.float(), x), (grad[:0], x[:0])):
        with pytest.raises(RuntimeError):
            torch.ops.norma_cpu.weight_gradient(*bad, False)


class Few(nn.Module):
    """Layers with and without biases, alone and together."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.query, self.key, self.down = Linear(64, 96), Linear(96, 64), Linear(96, 32), Linear(96, 48, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(torch.cat(together((self.query, self.key), F.gelu(self.up(x))), -1))
        return out


def learn(model: nn.Module, run, x: Tensor, grad: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """The output, and the gradients by what was read and by all parameters."""
    model.zero_grad()
    leaf = x.to(next(model.parameters()).dtype if x.dtype == torch.float64 else x.dtype).detach().requires_grad_()
    out = run(leaf)
    out.backward(grad.to(out.dtype))
    assert leaf.grad is not None
    return [out.detach().double(), leaf.grad.double(), *(p.grad.double() for p in model.parameters() if p.grad is not None)]


def exact(model: Few, x: Tensor, grad: Tensor) -> list[Tensor]:
    """In fp64, from the same numbers; weights rounded to bf16, as the layers have them."""
    double = Few().double()
    double.load_state_dict({name: p.bfloat16().double() for name, p in model.state_dict().items()})
    return learn(double, double, x.double(), grad)


@needs_kernel
def test_layers_learn_no_worse_than_by_pytorchs_operators() -> None:
    """Together (over JOIN tokens) and alone; the output's bits are PyTorch's own. Gradients are kept in the weights' type."""
    torch.manual_seed(0)
    model, x, grad = Few(), torch.randn(18, 128, 64).bfloat16(), torch.randn(18, 128, 48).bfloat16()
    found = learn(model, model, x, grad)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    kernels.leave_out(True)
    try:
        plain = learn(model, model, x, grad)
    finally:
        kernels.leave_out(False)
    assert torch.equal(found[0], plain[0]) and torch.equal(found[1], plain[1])
    for ours, theirs, truth in zip(found[2:], plain[2:], exact(model, x, grad)[2:], strict=True):
        assert distance(ours, truth) <= distance(theirs, truth)


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_in_one_piece(dynamic: bool) -> None:
    """Within 1% of fp64, output and gradients: bf16 keeps 2^-9 of a number, and a few roundings follow one another."""
    torch.manual_seed(0)
    model, x, grad = Few(), torch.randn(18, 128, 64).bfloat16(), torch.randn(18, 128, 48).bfloat16()
    found = learn(model, torch.compile(model, fullgraph=True, dynamic=dynamic), x, grad)
    for ours, truth in zip(found, exact(model, x, grad), strict=True):
        assert distance(ours, truth) < 0.01


@needs_kernel
def test_frozen_parts_get_no_gradient() -> None:
    layer, x = Linear(64, 32), torch.randn(ROWS, 64).bfloat16()
    assert layer.bias is not None
    layer.bias.requires_grad_(False)
    layer(x).sum().backward()
    assert layer.bias.grad is None and layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, x.float().sum(0).expand(32, 64), atol=1e-3, rtol=1e-5)


@needs_kernel
def test_what_is_left_to_pytorch() -> None:
    x, weight = torch.zeros(ROWS, 64).bfloat16(), nn.Parameter(torch.zeros(32, 64))
    assert learns(x, weight)
    assert not learns(x[1:], weight), "few tokens"
    assert not learns(x.float(), weight), "fp32: PyTorch's product is no slower transposed"
    assert not learns(x, weight.detach()), "frozen, as under LoRA"
    assert not learns(x, nn.Buffer(torch.zeros(32, 64)))

    class Spread(nn.Parameter):
        """Stands for a weight that is spread over ranks."""

    assert not learns(x, Spread(torch.zeros(32, 64)))
    with torch.no_grad():
        assert not learns(x, weight), "generation"
    assert adds(torch.zeros(32, 64), x) and not adds(torch.zeros(64, 32).t(), x) and not adds(torch.zeros(32, 64), x.float())
    kernels.leave_out(True)
    try:
        assert not learns(x, weight) and not adds(torch.zeros(32, 64), x)
    finally:
        kernels.leave_out(False)
