"""The CPU's own loss between the head's products, against fp64 and autograd, and what must hold around it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from norma.nn import kernels
from norma.nn.kernels import build
from norma.objectives import likelihood
from norma.objectives.likelihood import cross_entropy, token_logprobs

pytestmark = pytest.mark.skipif(build.refused() is not None, reason=f"no kernels here: {build.refused()}")
TYPES = [torch.float32, *([torch.bfloat16] if kernels.takes_bf16() else [])]


@pytest.fixture(autouse=True)
def built() -> None:
    assert kernels.state() is None


def material(N: int, V: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(N, V, generator=random)).to(dtype), torch.randint(V, (N,), generator=random)


def exact(x: Tensor, targets: Tensor, how: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, nats and gradient in fp64, by autograd."""
    raw = x.double().requires_grad_()
    scores = raw if how["bias_V"] is None else raw + how["bias_V"].double()
    scores = scores if how["softcap"] is None else how["softcap"] * torch.tanh(scores / how["softcap"])
    scores = scores / how["temperature"]
    nats = F.cross_entropy(scores, targets, reduction="none")
    losses = F.cross_entropy(scores, targets, reduction="none", label_smoothing=how["smoothing"])
    losses = losses + how["z_loss"] * scores.logsumexp(1).square()
    factor = torch.ones(len(x)) if how["factor_N"] is None else how["factor_N"]
    gradient = torch.autograd.grad((losses * factor.double()).sum(), raw)[0]
    return losses.detach(), nats.detach(), gradient


@settings(deadline=None, max_examples=150)
@given(
    N=st.integers(1, 40), V=st.integers(2, 200), dtype=st.sampled_from(TYPES), seed=st.integers(0, 2**31), bias=st.booleans(),
    factor=st.booleans(), softcap=st.sampled_from([None, 5.0, 30.0]), temperature=st.sampled_from([1.0, 0.7]),
    z_loss=st.sampled_from([0.0, 1e-2]), smoothing=st.sampled_from([0.0, 0.1]),
)  # fmt: skip
def test_equals_the_formula(N: int, V: int, dtype: torch.dtype, seed: int, bias: bool, factor: bool, **how: Any) -> None:
    """Losses within fp32's rounding of fp64; the gradient too, and then rounded once to the scores' type."""
    x, targets = material(N, V, dtype, seed)
    random = torch.Generator().manual_seed(seed + 1)
    how["bias_V"] = torch.randn(V, generator=random) if bias else None
    how["factor_N"] = torch.randn(N, generator=random) if factor else None
    losses, nats, gradient = exact(x, targets, how)
    written = x.clone()
    ours = kernels.softmax_loss(written, targets, **how)
    torch.testing.assert_close(ours[0].double(), losses, rtol=1e-6, atol=3e-6)
    torch.testing.assert_close(ours[1].double(), nats, rtol=1e-6, atol=3e-6)
    half_a_step = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-24  # bf16 keeps 8 bits, fp32 24
    size = 1.0 if how["factor_N"] is None else how["factor_N"].abs()[:, None]
    assert bool(((written.double() - gradient).abs() <= half_a_step * gradient.abs() + 2e-6 * size).all())
    untouched = x.clone()
    for a, b in zip(kernels.softmax_loss(untouched, targets, gradient=False, **how), ours, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(untouched, x)


@pytest.mark.parametrize("dtype", TYPES)
def test_the_gradient_is_as_near_as_pytorchs(dtype: torch.dtype) -> None:
    x, targets = material(200, 1000, dtype, 0)
    how = {"bias_V": None, "factor_N": None, "softcap": None, "temperature": 1.0, "z_loss": 0.0, "smoothing": 0.0}
    truth = exact(x, targets, how)[2]
    plain = likelihood.written_out(x, targets, None, None, 0.0, 0.0, 1.0, None, True)[2]
    kernels.softmax_loss(x, targets)
    ours, theirs = ((found.double() - truth).norm() / truth.norm() for found in (x, plain))
    assert ours < (2e-7 if dtype == torch.float32 else 2e-3) and ours < 1.01 * theirs


@pytest.mark.parametrize("dtype", TYPES)
def test_far_scores(dtype: torch.dtype) -> None:
    """Hidden tokens (-inf), scores far apart, scores far from 0; what is no number is not lost."""
    x = torch.zeros(5, 50, dtype=dtype)
    x[0, 1:] = -torch.inf
    x[1, 7] = 300.0
    x[2] = 4096.0
    x[3, 49] = torch.nan
    x[4, 3] = torch.inf
    targets = torch.tensor([0, 8, 5, 1, 1])
    losses, nats = kernels.softmax_loss(x, targets)
    assert nats[:3].tolist() == pytest.approx([0.0, 300.0, math.log(50)], rel=1e-6, abs=2e-7)
    assert not x[0].any() and float(x[1, 7]) == 1.0 and float(x[1, 8]) == -1.0
    assert bool(losses[3:].isnan().all()) and bool(x[3:].isnan().all())


def test_a_target_out_of_range_is_refused() -> None:
    for wrong in (-1, 50):
        with pytest.raises(IndexError, match=f"target {wrong} among 50 scores"):
            kernels.softmax_loss(torch.zeros(2, 50), torch.tensor([0, wrong]))


def test_no_rows() -> None:
    assert kernels.softmax_loss(torch.zeros(0, 50), torch.zeros(0, dtype=torch.long))[0].shape == (0,)


@pytest.mark.parametrize("dtype", TYPES)
def test_bits_depend_neither_on_the_run_nor_on_threads(dtype: torch.dtype) -> None:
    x, targets = material(130, 1001, dtype, 3)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 1, 2, 3):
            torch.set_num_threads(count)
            written = x.clone()
            found.append((*kernels.softmax_loss(written, targets, softcap=9.0, smoothing=0.1), written))
    finally:
        torch.set_num_threads(threads)
    for again in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], again, strict=True))


@pytest.mark.parametrize("dtype", TYPES)
def test_the_operator_is_declared_as_it_is(dtype: torch.dtype) -> None:
    x, targets = material(9, 70, dtype, 4)
    for gradient in (True, False):
        torch.library.opcheck(torch.ops.norma_cpu.softmax_loss_, (x, targets, torch.randn(70), None, 5.0, 1.0, 0.1, 0.1, gradient))


@pytest.mark.slow
def test_compiles_in_one_piece() -> None:
    x, targets = material(64, 500, torch.float32, 5)

    def run(x: Tensor) -> tuple[Tensor, Tensor]:
        scores = x * 2
        return kernels.softmax_loss(scores, targets)[0] + 1, scores

    for a, b in zip(torch.compile(run, fullgraph=True)(x), run(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_what_does_not_fit_is_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(200, 200)
    assert kernels.fits_scores(x)
    assert not kernels.fits_scores(x.double()) and not kernels.fits_scores(x.half())
    assert not kernels.fits_scores(x.t()[:, :180]), "columns side by side"
    assert not kernels.fits_scores(x[:1]), "too few to pay"
    monkeypatch.setattr(kernels, "state", lambda: "none here")
    assert not kernels.fits_scores(x)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("softcap", [None, 4.0])
def test_objectives_with_and_without_it(dtype: torch.dtype, softcap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both objectives give what PyTorch's operators give, with all their gradients, over several chunks."""
    monkeypatch.setattr(likelihood, "CHUNK", 90)
    random = torch.Generator().manual_seed(6)
    hidden, weight, bias = (torch.randn(shape, generator=random) for shape in ((200, 16), (301, 16), (301,)))
    targets = torch.randint(301, (200,), generator=random)
    weights = torch.rand(200, generator=random) - 0.3

    def objectives() -> list[Tensor]:
        found = []
        for objective in (
            lambda h, w, b: cross_entropy(h, w, targets, bias=b, softcap=softcap, z_loss=1e-3, smoothing=0.1)[0],
            lambda h, w, b: cross_entropy(h, w, targets, bias=b, softcap=softcap, weights_N=weights)[0],
            lambda h, w, b: (token_logprobs(h, w, targets, 0.7, bias=b, softcap=softcap) * weights).sum(),
        ):
            leaves = [hidden.to(dtype).requires_grad_(), weight.clone().requires_grad_(), bias.clone().requires_grad_()]
            loss = objective(*leaves)
            found += [loss.detach(), *torch.autograd.grad(loss, leaves)]
        return found

    ours = objectives()
    kernels.leave_out(True)
    try:
        plain = objectives()
    finally:
        kernels.leave_out(False)
    limit = 1e-6 if dtype == torch.float32 else 3e-3
    for a, b in zip(ours, plain, strict=True):
        assert float((a.double() - b.double()).norm() / b.double().norm()) < limit
