"""The CPU's own activations against their formulas in fp64, and what must hold around them: bits, compilation, layers that use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from norma.nn import kernels
from norma.nn.config import Activation, ModelConfig
from norma.nn.feed_forward import FeedForward
from norma.nn.kernels import build
from norma.nn.layers import Linear
from norma.nn.lora import LoraLinear, LoraOptions

needs_kernel = pytest.mark.skipif(build.refused() is not None, reason=f"no kernels here: {build.refused()}")
NAMES = get_args(Activation)
TYPES = [torch.float32, *([torch.bfloat16] if kernels.takes_bf16() else [])]
HALF = 2.0**-8  # the most that rounding to bf16 moves a number, relatively


def exact(name: str, x: Tensor) -> Tensor:
    """The activation as PyTorch computes it in fp64."""
    assert x.dtype == torch.float64
    if name.startswith("gelu"):
        return F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")
    return {"silu": F.silu, "relu": F.relu}[name](x)


def passes(run: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor) -> list[Tensor]:
    """The output and the gradients, in fp64."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = run(*leaves)
    out.backward(grad.to(out.dtype))
    return [x.double() for x in (out.detach(), *(x.grad for x in leaves if x.grad is not None))]


def close(found: Tensor, truth: Tensor, dtype: torch.dtype) -> None:
    """fp32: within 1e-6 of all together; bf16: every number rounded once, from one that good."""
    assert found.shape == truth.shape
    if dtype == torch.float32:
        assert (found - truth).norm() <= 1e-6 * truth.norm()
    else:
        torch.testing.assert_close(found, truth, rtol=1.01 * HALF, atol=1e-6 * max(1.0, float(truth.abs().max())))


shapes = st.tuples(st.integers(1, 3), st.integers(1, 150), st.integers(1, 6).map(lambda n: 32 * n))
some = given(shapes, st.sampled_from(NAMES), st.sampled_from(TYPES), st.booleans(), st.integers(0, 1000))


@needs_kernel
@some
@settings(max_examples=80, deadline=None)
def test_with_a_bias_equals_the_formula(shape: tuple[int, ...], name: str, dtype: torch.dtype, biased: bool, seed: int) -> None:
    assert kernels.state() is None
    random = torch.Generator().manual_seed(seed)
    x, grad = (3 * torch.randn(shape, generator=random).to(dtype) for _ in range(2))
    inputs = [x, *([torch.randn(shape[-1], generator=random)] if biased else [])]
    truth = passes(lambda x, b=0.0: exact(name, x + b), [t.double() for t in inputs], grad.double())
    found = passes(lambda x, b=None: kernels.activation(x, b, name), inputs, grad)
    for i, (ours, theirs) in enumerate(zip(found, truth, strict=True)):
        close(ours, theirs, torch.float32 if i == 2 else dtype)  # the bias's gradient is summed before anything is rounded


@needs_kernel
@some
@settings(max_examples=60, deadline=None)
def test_gated_equals_the_formula(shape: tuple[int, ...], name: str, dtype: torch.dtype, apart: bool, seed: int) -> None:
    assert kernels.state() is None
    random = torch.Generator().manual_seed(seed)
    joint, grad = (3 * torch.randn(*shape[:-1], n * shape[-1], generator=random).to(dtype) for n in (2, 1))
    if apart:  # rows that are not one after the other
        joint = torch.stack([joint, joint], -2)[..., 0, :]

    def formula(x: Tensor) -> Tensor:
        g, u = x.chunk(2, -1)
        return exact(name, g) * u

    truth = passes(formula, [joint.double()], grad.double())
    for ours, theirs in zip(passes(lambda x: kernels.gated(x, name), [joint], grad), truth, strict=True):
        close(ours, theirs, dtype)


@needs_kernel
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", TYPES)
def test_far_from_zero(name: str, dtype: torch.dtype) -> None:
    """Tails go to x and to 0, without overflow between; what is no number stays none."""
    assert kernels.state() is None
    x = torch.tensor([0.0, -0.0, 8.0, -8.0, 13.0, -13.0, 50.0, -50.0, 90.0, -90.0, 3e4, -3e4, 1e9, -1e9, 1e-30, -1e-30] * 2).to(dtype)
    for ours, theirs in zip(
        passes(lambda x: kernels.activation(x, None, name), [x], torch.ones(32)),
        passes(lambda x: exact(name, x), [x.double()], torch.ones(32)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-6 if dtype == torch.float32 else 1.01 * HALF, atol=1e-6)
    found = passes(lambda x: kernels.activation(x, None, name), [torch.full((32,), torch.nan, dtype=dtype)], torch.ones(32))
    assert found[0].isnan().all()


@needs_kernel
def test_bits_do_not_depend_on_threads() -> None:
    assert kernels.state() is None
    random = torch.Generator().manual_seed(0)
    x, joint, grad = (torch.randn(333, n, generator=random).to(TYPES[-1]) for n in (96, 192, 96))
    bias, threads, found = torch.randn(96, generator=random), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            one = passes(lambda x, b: kernels.activation(x, b, "gelu"), [x, bias], grad)
            found.append(one + passes(lambda x: kernels.gated(x, "silu"), [joint], grad))
    finally:
        torch.set_num_threads(threads)
    for again in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], again, strict=True))


@needs_kernel
@pytest.mark.parametrize("dtype", TYPES)
def test_operators_are_declared_as_they_are(dtype: torch.dtype) -> None:
    """What torch.compile is told about shapes, strides and gradients is what the operators do."""
    assert kernels.state() is None
    x, bias = torch.randn(5, 7, 64).to(dtype).requires_grad_(), torch.randn(64, requires_grad=True)
    for name in NAMES:
        torch.library.opcheck(torch.ops.norma_cpu.activation, (x, bias, name))
        torch.library.opcheck(torch.ops.norma_cpu.gated, (x, name))
    torch.library.opcheck(torch.ops.norma_cpu.activation, (x, bias.detach().to(dtype).requires_grad_(), "silu"))
    torch.library.opcheck(torch.ops.norma_cpu.activation, (x, None, "silu"))


def layer(gated: bool, bias: bool) -> FeedForward:
    config = ModelConfig(
        family="llama", vocab_size=8, width=32, layers=1, attention_heads=1, kv_heads=1, head_size=32, feed_forward_width=64,
        max_positions=8, gated=gated, feed_forward_bias=bias, activation="gelu_tanh",
    )  # fmt: skip
    torch.manual_seed(0)
    return FeedForward(config)


def learn(layer: FeedForward, x: Tensor, run: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Output and gradients of the layer; it forgets them."""
    layer.zero_grad()
    leaf = x.detach().requires_grad_()
    out = run(leaf)
    out.square().sum().backward()
    return [out.detach(), *(t.grad for t in (leaf, *layer.parameters()) if t.grad is not None)]


@needs_kernel
@pytest.mark.parametrize(("gated", "bias"), [(False, True), (False, False), (True, False), (True, True)])
def test_a_layer_learns_the_same_without_them(gated: bool, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = layer(gated, bias), torch.randn(2, 1030, 32, generator=torch.Generator().manual_seed(1))
    used = []
    for name in ("activation", "gated"):
        ours = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *given, ours=ours, name=name: used.append(name) or ours(*given))
    found = learn(made, x, made)
    assert used == ["gated" if gated else "activation"]
    kernels.leave_out(True)
    try:
        plain = learn(made, x, made)
    finally:
        kernels.leave_out(False)
    assert len(used) == 1, "left out"
    for ours, theirs in zip(found, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


@needs_kernel
@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("gated", [False, True])
def test_compiles_in_one_piece(gated: bool, dtype: torch.dtype) -> None:
    made, x = layer(gated, not gated), torch.randn(2, 1030, 32, generator=torch.Generator().manual_seed(1)).to(dtype)
    compiled = torch.compile(made, fullgraph=True)
    error = 1e-5 if dtype == torch.float32 else 2 * HALF
    for ours, theirs in zip(learn(made, x, compiled), learn(made, x, made), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=error, atol=error * float(theirs.abs().max()))


@needs_kernel
@pytest.mark.skipif(not kernels.takes_bf16(), reason="this CPU has no bf16")
@pytest.mark.parametrize(("gated", "bias"), [(False, True), (False, False), (True, False), (True, True)])
def test_in_bf16_the_activation_is_made_again_and_not_kept(gated: bool, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits as by two operators that keep it, and F numbers a token less."""
    made, x = layer(gated, bias), torch.randn(2, 1030, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept[-1] += tensor.numel() * (tensor.shape[-1] >= 64 and tensor.shape[0] == 2)
        return tensor

    def counted(leaf: Tensor) -> Tensor:
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            return made(leaf)  # type: ignore[no-any-return]

    found = learn(made, x, counted)
    monkeypatch.setattr("norma.nn.feed_forward.learns", lambda *given: False)
    apart = learn(made, x, counted)
    assert kept == [2 * 1030 * 64 * (1 + gated), 2 * 1030 * 64 * (2 + gated)]
    for ours, theirs in zip(found, apart, strict=True):
        assert torch.equal(ours, theirs)


@needs_kernel
def test_an_adapted_layer_keeps_its_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = layer(False, True), torch.randn(100, 32, generator=torch.Generator().manual_seed(1))
    up = made.up
    assert isinstance(up, Linear)
    adapter = LoraLinear(up, LoraOptions(rank=2))
    torch.nn.init.normal_(adapter.B)
    made.up = adapter
    monkeypatch.setattr(kernels, "activation", lambda *given: pytest.fail("the adapter would not be read"))
    torch.testing.assert_close(made(x), made.down(F.gelu(adapter(x), approximate="tanh")))


def test_what_does_not_fit_is_left_to_others() -> None:
    x = torch.zeros(80, 16)
    assert not kernels.activates(x, 48 + 1), "an odd width"
    assert not kernels.activates(x[:3], 64), "a few rows: generation"
    assert not kernels.activates(x.double(), 64)
    assert not kernels.activates(x.to("meta"), 64)
