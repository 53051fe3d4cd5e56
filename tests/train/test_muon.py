"""Muon: PyTorch's own as the oracle in bf16, the singular value decomposition in fp32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from norma.lm import LanguageModel
from norma.train import optimiser
from norma.train.muon import Muon, orthogonal

SHAPES = [(24, 24), (8, 40), (40, 8), (1, 5)]


@pytest.mark.parametrize("steps", [1, 4])
def test_in_bf16_it_is_pytorchs_to_the_last_bit(steps: int) -> None:
    torch.manual_seed(0)
    ours = [torch.randn(shape, requires_grad=True) for shape in SHAPES]
    theirs = [weight.detach().clone().requires_grad_() for weight in ours]
    a = Muon([{"params": ours}], lr=0.02, weight_decay=0.1, dtype=torch.bfloat16)
    b = torch.optim.Muon([{"params": theirs}], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for _ in range(steps):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        a.step()
        b.step()
    assert all(one.equal(other) for one, other in zip(ours, theirs, strict=True))
    assert all(a.state[one]["momentum_buffer"].equal(b.state[other]["momentum_buffer"]) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    matrix = torch.randn(shape)
    made = orthogonal(matrix, torch.float32)
    assert made.dtype == torch.float32 and made.shape == matrix.shape
    u, values, vt = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.T @ made @ vt.T  # in the directions of the matrix itself
    kept = turned.diagonal()[values > 0.02 * values.sum()]  # five steps do not lift what is far smaller
    assert ((kept > 0.6) & (kept < 1.3)).all()
    assert (turned - turned.diagonal().diag()).abs().max() < 1e-4


def test_a_matrix_of_zeros_and_weights_without_gradients_stay() -> None:
    still, zero = torch.ones(3, 3, requires_grad=True), torch.ones(3, 3, requires_grad=True)
    zero.grad = torch.zeros(3, 3)
    Muon([still, zero], lr=0.1, weight_decay=0.0, dtype=torch.float32).step()
    assert still.equal(torch.ones(3, 3)) and zero.equal(torch.ones(3, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_iterates_in_what_the_device_multiplies(
    dtype: torch.dtype, make_model: Callable[..., LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimiser, "working_dtype", lambda _: dtype)
    made = optimiser.make_optimisers(
        make_model().transformer, kind="muon", learning_rate=1e-3, matrix_learning_rate=1e-2, weight_decay=0.1
    )
    assert [o.dtype for o in made if isinstance(o, Muon)] == [dtype]
