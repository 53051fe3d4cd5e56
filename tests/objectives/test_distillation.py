"""Distillation's losses against slow loops, by hand, and their gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from norma.objectives import distillation
from norma.objectives.distillation import Head, Likeliest, forward_kl, likeliest, likeliest_kl

M, W, V = 7, 5, 11


def made(seed: int) -> tuple[torch.Tensor, Head]:
    random = np.random.default_rng(seed)
    features = torch.tensor(random.normal(size=(M, W)), dtype=torch.float32)
    return features, Head(torch.tensor(random.normal(size=(V, W)), dtype=torch.float32))


def probabilities(features: torch.Tensor, head: Head, temperature: float) -> list[list[float]]:
    """Softmax one number at a time, in doubles."""
    rows = []
    for x in features.double().numpy():
        scores = [
            float(np.dot(x, w)) + (0.0 if head.bias is None else float(head.bias[v])) for v, w in enumerate(head.weight.double().numpy())
        ]
        if head.softcap is not None:
            scores = [head.softcap * math.tanh(s / head.softcap) for s in scores]
        total = sum(math.exp(s / temperature) for s in scores)
        rows.append([math.exp(s / temperature) / total for s in scores])
    return rows


def loop(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def test_by_hand() -> None:
    """Two tokens: p = (3/4, 1/4), q = (1/2, 1/2). KL = 3/4 ln 3/2 + 1/4 ln 1/2; by the student's first score its gradient is q - p."""
    eye = Head(torch.eye(2))
    teacher = torch.tensor([[math.log(3.0), 0.0]])
    student = torch.zeros(1, 2, requires_grad=True)
    loss = forward_kl(student, eye, teacher, eye)
    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6)
    loss.backward()
    assert student.grad is not None and student.grad[0].tolist() == pytest.approx([-0.25, 0.25])


def test_the_rest_is_one_class_by_hand() -> None:
    """p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2), the likeliest kept: KL of (1/2, 1/2) from (1/4, 3/4)."""
    eye = Head(torch.eye(3))
    teacher, student = torch.tensor([[2.0, 1.0, 1.0]]).log(), torch.tensor([[1.0, 1.0, 2.0]]).log()
    kept = likeliest(teacher, eye, 1)
    assert kept.ids.tolist() == [[0]] and float(kept.log_p) == pytest.approx(math.log(0.5), abs=1e-6)
    assert float(likeliest_kl(student, eye, kept)) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3), abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize(("bias", "softcap"), [(False, None), (True, None), (True, 3.0)])
@pytest.mark.parametrize("chunk", [3, 1024])
def test_the_whole_vocabulary_against_a_loop(
    temperature: float, bias: bool, softcap: float | None, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distillation, "CHUNK", chunk)
    (student, head), (teacher, teacher_head) = made(1), made(2)
    if bias or softcap:
        extra = torch.linspace(-1, 1, V) if bias else None
        head, teacher_head = Head(head.weight, extra, softcap), Head(teacher_head.weight, None if extra is None else -extra, softcap)
    wanted = sum(map(loop, probabilities(teacher, teacher_head, temperature), probabilities(student, head, temperature)))
    assert float(forward_kl(student, head, teacher, teacher_head, temperature=temperature)) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("k", [1, 4, V - 1, V, 99])
@pytest.mark.parametrize("chunk", [2, 1024])
def test_the_likeliest_and_the_rest_against_a_loop(k: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "CHUNK", chunk)
    (student, head), (teacher, teacher_head) = made(3), made(4)
    wanted = 0.0
    for p, q in zip(probabilities(teacher, teacher_head, 1.0), probabilities(student, head, 1.0), strict=True):
        order = sorted(range(V), key=lambda v: -p[v])
        kept, rest = order[:k], order[k:]
        wanted += loop([*(p[v] for v in kept), sum(p[v] for v in rest)], [*(q[v] for v in kept), sum(q[v] for v in rest) or 1.0])
    found = float(likeliest_kl(student, head, likeliest(teacher, teacher_head, k)))
    whole = float(forward_kl(student, head, teacher, teacher_head))
    assert found == pytest.approx(wanted, rel=1e-4)
    assert found <= whole + 1e-5 and (k < V or found == pytest.approx(whole, rel=1e-4)), "data processing: fewer classes, less KL"


@pytest.mark.parametrize("k", [None, 3])
def test_gradients_against_finite_differences(k: int | None) -> None:
    (student, head), (teacher, teacher_head) = made(5), made(6)
    x, w = student.double().requires_grad_(True), head.weight.double().requires_grad_(True)
    t, tw = teacher.double(), teacher_head.weight.double()
    kept = None if k is None else likeliest(t, Head(tw), k)

    def loss(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        # In doubles all the way: the heads' own scores are made in fp32.
        log_q = torch.log_softmax(a @ b.t(), dim=-1)
        if kept is None:
            log_p = torch.log_softmax(t @ tw.t(), dim=-1)
            return (log_p.exp() * (log_p - log_q)).sum()
        mass_p, mass_q = kept.log_p.double().exp(), log_q.gather(1, kept.ids).exp()
        rest_p, rest_q = 1 - mass_p.sum(1), 1 - mass_q.sum(1)
        return (mass_p * (mass_p / mass_q).log()).sum() + (rest_p * (rest_p / rest_q).log()).sum()

    ours_x, ours_w = student.clone().requires_grad_(True), head.weight.clone().requires_grad_(True)
    ours = (
        forward_kl(ours_x, Head(ours_w), teacher, teacher_head)
        if k is None
        else likeliest_kl(ours_x, Head(ours_w), likeliest(teacher, teacher_head, k))
    )
    ours.backward()
    epsilon, numeric = 1e-6, torch.zeros_like(x)
    for i in range(M):
        for j in range(W):
            up, down = x.detach().clone(), x.detach().clone()
            up[i, j] += epsilon
            down[i, j] -= epsilon
            numeric[i, j] = (loss(up, w.detach()) - loss(down, w.detach())) / (2 * epsilon)
    assert ours_x.grad is not None and ours_w.grad is not None
    torch.testing.assert_close(ours_x.grad.double(), numeric, rtol=1e-3, atol=1e-5)
    (by_w,) = torch.autograd.grad(loss(x, w), w)
    torch.testing.assert_close(ours_w.grad.double(), by_w, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("k", [None, 2])
def test_a_teacher_that_is_the_student_teaches_nothing(k: int | None) -> None:
    features, head = made(7)
    x = features.clone().requires_grad_(True)
    loss = forward_kl(x, head, features, head) if k is None else likeliest_kl(x, head, likeliest(features, head, k))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5) and x.grad is not None and float(x.grad.abs().max()) < 1e-6


def test_the_teacher_gets_no_gradient() -> None:
    (student, head), (teacher, teacher_head) = made(8), made(9)
    teacher.requires_grad_(True)
    teacher_head.weight.requires_grad_(True)
    student.requires_grad_(True)
    forward_kl(student, head, teacher, teacher_head).backward()
    assert teacher.grad is None and teacher_head.weight.grad is None and student.grad is not None
    assert not likeliest(teacher, teacher_head, 3).log_p.requires_grad


def test_a_tail_of_almost_nothing_stays_finite() -> None:
    """The teacher is certain to the last bit of fp32: the rest has no mass, and must be no NaN."""
    eye = Head(torch.eye(4))
    student = torch.zeros(1, 4, requires_grad=True)
    loss = likeliest_kl(student, eye, Likeliest(torch.zeros(1, 1), torch.tensor([[2]])))
    loss.backward()
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6) and student.grad is not None and bool(student.grad.isfinite().all())
