"""Likelihoods against plain PyTorch, against a loop, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from norma.objectives import likelihood
from norma.objectives.likelihood import cross_entropy, cross_entropy_sum, token_logprobs
from norma.text.packing import IGNORE


def material(n: int = 11, width: int = 5, vocabulary: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, width, generator=random, requires_grad=True)
    weight = torch.randn(vocabulary, width, generator=random, requires_grad=True)
    return hidden, weight, torch.randint(0, vocabulary, (n,), generator=random)


def test_by_hand() -> None:
    # Logits (ln 1, ln 3) and (ln 3, ln 1): p = (1/4, 3/4) and (3/4, 1/4).
    hidden, weight = torch.eye(2, requires_grad=True), torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]], requires_grad=True)
    loss = cross_entropy_sum(hidden, weight, torch.tensor([0, 0]))
    assert loss.item() == pytest.approx(math.log(4) + math.log(4 / 3))
    loss.backward()
    # d/d logits = p - onehot: (-3/4, 3/4) and (-1/4, 1/4); times the weight's rows, (0, ln 3) and (ln 3, 0).
    assert weight.grad is not None and hidden.grad is not None
    torch.testing.assert_close(weight.grad, torch.tensor([[-0.75, -0.25], [0.75, 0.25]]))
    torch.testing.assert_close(hidden.grad, torch.tensor([[0.75, -0.75], [0.25, -0.25]]) * math.log(3))
    log_p = token_logprobs(hidden.detach(), weight.detach(), torch.tensor([0, 1]))
    torch.testing.assert_close(log_p, torch.tensor([0.25, 0.25]).log())


@pytest.mark.parametrize("chunk", [1, 3, 4, 11, 2048])
@pytest.mark.parametrize("ignored", [[], [0, 4, 10], list(range(11))])
def test_cross_entropy_equals_pytorchs_with_its_gradients(chunk: int, ignored: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "CHUNK", chunk)
    hidden, weight, targets = material()
    targets[ignored] = IGNORE
    ours = cross_entropy_sum(hidden, weight, targets)
    theirs = F.cross_entropy(hidden @ weight.t(), targets, reduction="sum", ignore_index=IGNORE)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    mine, other = torch.autograd.grad(ours * 0.3, (hidden, weight)), torch.autograd.grad(theirs * 0.3, (hidden, weight))
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert all(mine[0][i].abs().sum() == 0 for i in ignored)


@pytest.mark.parametrize("chunk", [1, 4, 11, 2048])
@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
def test_token_logprobs_equal_log_softmax_with_its_gradients(chunk: int, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(likelihood, "CHUNK", chunk)
    hidden, weight, targets = material()
    ours = token_logprobs(hidden, weight, targets, temperature)
    theirs = ((hidden @ weight.t()) / temperature).log_softmax(-1)[torch.arange(len(targets)), targets]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    scale = torch.linspace(-1, 2, len(targets))
    for a, b in zip(
        torch.autograd.grad((ours * scale).sum(), (hidden, weight)),
        torch.autograd.grad((theirs * scale).sum(), (hidden, weight)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_no_tokens_have_no_logprobs() -> None:
    hidden, weight, targets = material()
    assert token_logprobs(hidden[:0], weight, targets[:0]).shape == (0,)


def test_without_gradients_none_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, targets = material()
    wanted = float(cross_entropy_sum(hidden, weight, targets))
    monkeypatch.setattr(torch, "mm", lambda *a, **k: pytest.fail("a gradient was made"))
    with torch.no_grad():
        assert float(cross_entropy_sum(hidden, weight, targets)) == pytest.approx(wanted)


def test_bf16_activations_keep_an_fp32_weight_gradient() -> None:
    hidden, weight, targets = material(64, 16, 32)
    loss = cross_entropy_sum(hidden.bfloat16(), weight, targets)
    assert loss.dtype == torch.float32
    gradient = torch.autograd.grad(loss, weight)[0]
    exact = torch.autograd.grad(cross_entropy_sum(hidden, weight, targets), weight)[0]
    assert gradient.dtype == torch.float32
    assert float((gradient - exact).norm() / exact.norm()) < 0.02


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(("z_loss", "smoothing"), [(0.01, 0.0), (0.0, 0.2), (0.03, 0.1), (0.0, 0.0)])
def test_z_loss_and_label_smoothing_equal_their_formulas(
    z_loss: float, smoothing: float, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "CHUNK", 4)
    hidden, weight, targets = material()
    bias = torch.linspace(-1, 1, len(weight), requires_grad=True)
    targets[[1, 6]] = IGNORE
    ours, nats = cross_entropy(hidden, weight, targets, bias=bias, softcap=softcap, z_loss=z_loss, smoothing=smoothing)
    scores = hidden @ weight.t() + bias
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    theirs = F.cross_entropy(scores, targets, reduction="sum", ignore_index=IGNORE, label_smoothing=smoothing)
    theirs = theirs + z_loss * scores[targets != IGNORE].logsumexp(-1).square().sum()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(nats, F.cross_entropy(scores, targets, reduction="none")[targets != IGNORE].detach(), rtol=1e-5, atol=1e-6)
    assert not nats.requires_grad
    wrt = (hidden, weight, bias)
    for a, b in zip(torch.autograd.grad(ours * 0.7, wrt), torch.autograd.grad(theirs * 0.7, wrt), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_z_loss_and_smoothing_by_hand() -> None:
    # Scores (ln 1, ln 3), target 0: p = (1/4, 3/4), the softmax's sum is 4.
    hidden, weight = torch.eye(1), torch.tensor([[0.0], [math.log(3)]])
    zero = torch.tensor([0])
    assert cross_entropy(hidden, weight, zero, z_loss=0.5)[0].item() == pytest.approx(math.log(4) + 0.5 * math.log(4) ** 2)
    expected = 0.9 * math.log(4) + 0.1 * (math.log(4) + math.log(4 / 3)) / 2
    assert cross_entropy(hidden, weight, zero, smoothing=0.1)[0].item() == pytest.approx(expected)


def test_a_frozen_head_gets_no_gradient_and_changes_nobody_elses() -> None:
    """As under LoRA: the same loss and the same gradient of hidden states, and none is worked out for the head."""
    generator = torch.Generator().manual_seed(4)
    targets = torch.randint(0, 11, (7,), generator=generator)
    hidden, weight = torch.randn(7, 5, generator=generator), torch.randn(11, 5, generator=generator)
    found = []
    for learns in (True, False):
        h, w = hidden.clone().requires_grad_(True), weight.clone().requires_grad_(learns)
        loss = cross_entropy_sum(h, w, targets)
        loss.backward()
        found.append((loss.detach(), h.grad))
        assert (w.grad is not None) == learns
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
