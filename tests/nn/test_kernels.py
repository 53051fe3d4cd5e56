"""The CPU's own attention against the definition in fp64, and what must hold around it: masks, bits, compilation, doing without."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from norma.nn import kernels
from norma.nn.attention import attend, written_out
from norma.nn.kernels import build
from norma.nn.mask import HIDDEN, Seen, additive
from norma.nn.positions import rotate

needs_kernel = pytest.mark.skipif(build.refused() is not None, reason=f"no kernels here: {build.refused()}")
needs_bf16 = pytest.mark.skipif(not kernels.takes_bf16(), reason="this CPU has no bf16")
SHAPES = [  # B, H, G, T, S, D
    (2, 2, 2, 37, 37, 32),
    (1, 4, 2, 300, 300, 64),
    (2, 6, 1, 64, 129, 64),
    (1, 2, 2, 130, 130, 96),
    (3, 1, 1, 16, 200, 128),
]


def tensors(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> tuple[list[Tensor], Tensor]:
    """q, k, v as attention gets them, views of (B, length, heads, D); and the gradient of the output."""
    B, H, G, T, S, D = shape
    random = torch.Generator().manual_seed(seed)

    def heads(n: int, length: int) -> Tensor:
        return torch.randn(B, length, n, D, generator=random).to(dtype).transpose(1, 2)

    return [heads(H, T), heads(G, S), heads(G, S)], heads(H, T)


def defined(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, causal: bool, scale: float) -> Tensor:
    """softmax(scale q k^T + bias) v, with einsum, in the type that comes in."""
    _, H, T, _ = q.shape
    group, S = H // k.shape[1], k.shape[2]
    scores = torch.einsum("bhtd,bhsd->bhts", q, k.repeat_interleave(group, 1)) * scale
    scores = scores if bias is None else scores + bias
    if causal:
        later = torch.arange(S)[None] > torch.arange(T)[:, None] + S - T
        scores = scores.masked_fill(later, float("-inf"))
    return torch.einsum("bhts,bhsd->bhtd", scores.softmax(-1), v.repeat_interleave(group, 1))


def gradients(run, inputs: list[Tensor], grad: Tensor, bias: Tensor | None, learn: bool) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """The output, and the gradients by q, k, v and perhaps the bias, all in fp64."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    added = None if bias is None else bias.detach().requires_grad_(learn)
    out = run(*leaves, added)
    out.backward(grad)
    assert not learn or added is not None
    return [x.double() for x in (out.detach(), *(x.grad for x in leaves), *([added.grad] if learn and added is not None else []))]


def distance(x: Tensor, y: Tensor) -> float:
    return float((x - y).norm() / y.norm())


@needs_kernel
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["none", "relative", "padding"])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bf16)])
def test_equals_the_definition(shape: tuple[int, ...], causal: bool, kind: str, dtype: torch.dtype) -> None:
    """fp32 within 2e-6 of fp64, output and gradients; bf16 no further away than the written-out bf16 form."""
    B, H, _, T, S, D = shape
    inputs, grad = tensors(shape, dtype)
    bias, scale = None, D**-0.5
    if kind == "relative":
        bias = torch.randn(1, H, T, S, generator=torch.Generator().manual_seed(1)).to(dtype)
    elif kind == "padding":
        allowed = torch.rand(B, 1, 1, S, generator=torch.Generator().manual_seed(1)) < 0.7
        allowed[..., 0] = True  # nobody sees nothing
        bias = additive(allowed, dtype)
    learn = kind == "relative"
    assert kernels.fits(inputs[0], inputs[1], bias, causal, scale)
    truth = gradients(
        lambda q, k, v, b: defined(q, k, v, b, causal, scale),
        [x.double() for x in inputs], grad.double(), None if bias is None else bias.double(), learn,
    )  # fmt: skip
    found = gradients(lambda q, k, v, b: kernels.attention(q, k, v, b, causal, scale), inputs, grad, bias, learn)
    if dtype == torch.float32:
        assert max(map(distance, found, truth)) < 2e-6
        return
    if causal and bias is not None:  # the written-out form wants the mask within the bias
        triangle = torch.ones(T, S, dtype=torch.bool).tril(S - T)
        bias = bias.masked_fill(~triangle, HIDDEN)
    plain = gradients(lambda q, k, v, b: written_out(q, k, v, Seen(b, causal), scale, None), inputs, grad, bias, learn)
    for ours, theirs, exact in zip(found, plain, truth, strict=True):
        assert distance(ours, exact) <= distance(theirs, exact)


@needs_kernel
def test_a_query_that_sees_nothing() -> None:
    """It gets the mean of the values, as the written-out form gives it, and passes no gradient."""
    inputs, grad = tensors((1, 1, 1, 20, 40, 32), torch.float32)
    bias = torch.zeros(1, 1, 20, 40)
    bias[..., 3, :] = HIDDEN
    out, *by = gradients(lambda q, k, v, b: kernels.attention(q, k, v, b, False, 0.2), inputs, grad, bias, False)
    torch.testing.assert_close(out[0, 0, 3], inputs[2][0, 0].double().mean(0), atol=1e-6, rtol=0)
    assert not by[0][0, 0, 3].any() and all(x.isfinite().all() for x in by)


@needs_kernel
def test_bits_depend_neither_on_the_run_nor_on_threads() -> None:
    assert kernels.state() is None
    dtype = torch.bfloat16 if kernels.takes_bf16() else torch.float32
    inputs, grad = tensors((5, 4, 2, 150, 150, 64), dtype)
    bias = torch.randn(1, 4, 150, 150, generator=torch.Generator().manual_seed(1)).to(dtype)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 1, 2, 3):
            torch.set_num_threads(count)
            found.append(gradients(lambda q, k, v, b: kernels.attention(q, k, v, b, False, 0.1), inputs, grad, bias, True))
    finally:
        torch.set_num_threads(threads)
    for again in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(found[0], again, strict=True))


@needs_kernel
@pytest.mark.parametrize("shape", [(70, 32), (3, 41, 96), (2, 500, 384)])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bf16)])
def test_rms_norm_equals_its_formula(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """fp32 within 1e-6 of fp64, the gradients too; bf16 no further away than PyTorch's operators with a weight in bf16."""
    random = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(shape, generator=random).to(dtype) for _ in range(2))
    weight = torch.randn(shape[-1], generator=random)
    assert kernels.norms(x, weight)

    def run(norm, *inputs: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
        leaves = [t.detach().requires_grad_() for t in inputs]
        out = norm(*leaves)
        out.backward(grad.to(out.dtype))
        return [t.double() for t in (out.detach(), *(t.grad for t in leaves))]

    truth = run(lambda x, w: x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w, x.double(), weight.double())
    found = run(lambda x, w: kernels.rms_norm(x, w, 1e-5), x, weight)
    if dtype == torch.float32:
        assert max(map(distance, found, truth)) < 1e-6
        return
    plain = run(lambda x, w: torch.nn.functional.rms_norm(x, shape[-1:], w.to(dtype), 1e-5), x, weight)
    for ours, theirs, exact in zip(found, plain, truth, strict=True):
        assert distance(ours, exact) <= distance(theirs, exact)


@needs_kernel
@pytest.mark.parametrize("size", [64, 96])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bf16)])
def test_rotary_turns_pairs_as_the_formula_has_it(dtype: torch.dtype, rows: int, size: int) -> None:
    """A loop over pairs in fp64; features beyond those that turn stay as they are. Read out of the middle of a wider product."""
    B, H, T, D, n = 3, 2, 70, size, 32
    random = torch.Generator().manual_seed(0)
    wide, grad = (torch.randn(B, T, 2 * H * D, generator=random).to(dtype), torch.randn(B, H, T, D, generator=random).to(dtype))
    angles = torch.randn(rows, 1, T, n, generator=random)
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def part(x: Tensor) -> Tensor:
        return x[..., H * D :].view(B, T, H, D).transpose(1, 2)

    def formula(x: Tensor) -> Tensor:
        out = x.clone()
        for i in range(n):
            c, s = cos[..., i].double(), sin[..., i].double()
            out[..., i] = x[..., i] * c - x[..., i + n] * s
            out[..., i + n] = x[..., i + n] * c + x[..., i] * s
        return out

    leaf, exact = wide.clone().requires_grad_(), wide.double().requires_grad_()
    assert kernels.rotates(part(leaf), cos)
    found, truth = rotate(part(leaf), cos, sin), formula(part(exact))
    found.backward(grad)
    truth.backward(grad.double())
    assert leaf.grad is not None and exact.grad is not None
    most = 1e-6 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(found.double(), truth, atol=most, rtol=most)
    torch.testing.assert_close(leaf.grad.double(), exact.grad, atol=most, rtol=most)


@needs_kernel
@pytest.mark.parametrize("shape", [(70, 32), (3, 41, 96), (2, 500, 384)])
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bf16)])
@pytest.mark.parametrize("biased", [True, False])
def test_layer_norm_equals_its_formula(shape: tuple[int, ...], dtype: torch.dtype, biased: bool) -> None:
    """As the RMS norm's test; rows far from zero, where a variance from the mean of squares would lose its digits."""
    random = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(shape, generator=random).to(dtype) + away for away in (8, 0))
    weight, bias = torch.randn(2, shape[-1], generator=random)
    assert kernels.norms(x, weight)
    inputs = [x, weight, *([bias] if biased else [])]

    def run(norm, *inputs: Tensor) -> list[Tensor]:  # type: ignore[no-untyped-def]
        leaves = [t.detach().requires_grad_() for t in inputs]
        out = norm(*leaves)
        out.backward(grad.to(out.dtype))
        return [t.double() for t in (out.detach(), *(t.grad for t in leaves))]

    def formula(x: Tensor, w: Tensor, b: Tensor | float = 0.0) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * w + b

    truth = run(formula, *(t.double() for t in inputs))
    found = run(lambda x, w, b=None: kernels.layer_norm(x, w, b, 1e-5), *inputs)
    if dtype == torch.float32:
        assert max(map(distance, found, truth)) < 2e-6
        return
    plain = run(lambda x, *wb: torch.nn.functional.layer_norm(x, shape[-1:], *(t.to(dtype) for t in wb), eps=1e-5), *inputs)
    for ours, theirs, exact in zip(found, plain, truth, strict=True):
        assert distance(ours, exact) <= distance(theirs, exact)


@needs_kernel
def test_operators_are_declared_as_they_are() -> None:
    """What torch.compile is told about shapes, strides and gradients is what the operators do."""
    (q, k, v), _ = tensors((2, 4, 2, 33, 33, 32), torch.float32)
    bias = torch.randn(1, 4, 33, 33)
    assert kernels.state() is None
    leaves = [x.requires_grad_() for x in (q, k, v, bias)]
    torch.library.opcheck(torch.ops.norma_cpu.attention, (*leaves, True, 0.3))
    torch.library.opcheck(torch.ops.norma_cpu.attention, (*leaves[:3], None, False, 0.3))
    x, weight = torch.randn(5, 7, 32, requires_grad=True), torch.randn(32, requires_grad=True)
    torch.library.opcheck(torch.ops.norma_cpu.rms_norm, (x, weight, 1e-5))
    cos, sin = torch.randn(2, 2, 1, 5, 32).unbind()
    torch.library.opcheck(torch.ops.norma_cpu.rotary, (torch.randn(2, 3, 5, 64, requires_grad=True), cos, sin, False))
    torch.library.opcheck(torch.ops.norma_cpu.layer_norm, (x, weight, torch.randn(32, requires_grad=True), 1e-5))
    torch.library.opcheck(torch.ops.norma_cpu.layer_norm, (x, weight, None, 1e-5))


@needs_kernel
@pytest.mark.slow
def test_compiles_in_one_piece() -> None:
    inputs, grad = tensors((2, 4, 2, 40, 40, 32), torch.float32)

    def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
        return attend(q * 2, k, v, Seen(bias, causal=True), 0.3) + 1

    compiled = torch.compile(run, fullgraph=True)
    for x, y in zip(gradients(compiled, inputs, grad, None, False), gradients(run, inputs, grad, None, False), strict=True):
        torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-5)


def test_what_does_not_fit_is_left_to_others() -> None:
    q = torch.zeros(1, 4, 32, 64)
    bias = torch.zeros(1, 1, 32, 32, requires_grad=True)  # shared by the heads: its gradient is a sum that is not made here
    assert not kernels.fits(q[:, :, :1], q, None, True, 0.1), "one query: generation"
    assert not kernels.fits(q, q[:, :, :20], None, True, 0.1), "queries before the first key"
    assert not kernels.fits(q[..., :24], q[..., :24], None, True, 0.1), "an odd size of heads"
    assert not kernels.fits(q.double(), q.double(), None, True, 0.1)
    assert not kernels.fits(q, q, bias, True, 0.1)


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        (build.SWITCH, "off", f"{build.SWITCH}=off"),
        pytest.param("CXX", "/nowhere/g++", "no C++ compiler", marks=needs_kernel),
        pytest.param("CXX", "/bin/false", "/bin/false failed: no message", marks=needs_kernel),
    ],
)
def test_doing_without(variable: str, value: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switched off, without a compiler, with one that fails: one line says why, nothing is left behind, and attention is as before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(variable, value)
    found = build.load(kernels.FOLDER)
    assert found == why
    assert not [path for path in tmp_path.rglob("*") if path.name != "norma"]
    monkeypatch.setattr(kernels, "state", lambda: found)
    (q, k, v), _ = tensors((1, 2, 2, 40, 40, 32), torch.float32)
    expected = written_out(q, k, v, Seen(None, causal=True), 0.3, None)
    assert torch.equal(attend(q, k, v, Seen(None, causal=True), 0.3), expected)


@needs_kernel
def test_a_library_belongs_to_its_source_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "attention.cpp"
    header = tmp_path / "kernels.h"
    source.write_text("// one", encoding="utf-8")
    header.write_text("// one", encoding="utf-8")
    first = build.library(tmp_path)
    monkeypatch.setattr(build, "cpu_flags", lambda: frozenset({"avx512f"}))
    assert build.library(tmp_path) != first
    monkeypatch.undo()
    assert build.library(tmp_path) == first
    header.write_text("// two", encoding="utf-8")
    assert build.library(tmp_path) != first


@needs_kernel
def test_a_run_that_began_without_them_goes_on_without() -> None:
    q = torch.randn(1, 2, 64, 32)
    assert kernels.fits(q, q, None, True, 1.0) and kernels.norms(q.view(128, 32), torch.ones(32))
    kernels.leave_out(True)
    try:
        assert not kernels.fits(q, q, None, True, 1.0) and not kernels.norms(q.view(128, 32), torch.ones(32))
    finally:
        kernels.leave_out(False)
    assert kernels.fits(q, q, None, True, 1.0)


def test_two_threads_that_ask_first_declare_the_operators_once(monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[str] = []
    monkeypatch.setattr(kernels.build, "load", lambda folder: time.sleep(0.05))  # both threads are inside before either is through
    monkeypatch.setattr(kernels.declare, "declare", lambda: declared.append("once"))
    for name in ("state", "_loaded"):
        monkeypatch.setattr(kernels, name, cache(getattr(kernels, name).__wrapped__))
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda n: kernels.state(), range(2))) == [None, None]
    assert declared == ["once"]
