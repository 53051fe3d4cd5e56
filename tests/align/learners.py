"""What tests of policy training share: a policy over a tiny model, its gradient, a rule that is any function of the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from norma.align.policy import NormPolicy
from norma.align.policy_options import PolicyOptions
from norma.align.rewarding import NormReward
from norma.lm import LanguageModel
from norma.spec import Item

Make = Callable[..., LanguageModel]


def policy(model: LanguageModel, spec: Any, items: Sequence[Item], state: dict[str, Any] | None = None, **options: Any) -> NormPolicy:
    """Two questions, eight answers of up to three tokens each, no penalty for being cut off."""
    settings = PolicyOptions(**{"questions": 2, "group": 8, "max_new_tokens": 3, "unfinished": 0.0} | options)
    reward = NormReward(spec, settings)
    return NormPolicy(model, model.copy(), reward, items, settings, seed=3, dtype=torch.float32, state=state)


def gradients(made: NormPolicy, step: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The gradient of a step, by parameter, and its numbers."""
    made.learner.zero_grad()
    numbers: dict[str, float] = {}
    for loss, part in made.losses(step):
        loss.backward()
        for key, value in part.items():
            numbers[key] = numbers.get(key, 0.0) + value
    return {n: p.grad.clone() for n, p in made.learner.named_parameters() if p.grad is not None}, numbers


def close(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], rtol: float = 1e-3, atol: float = 1e-6) -> None:
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}")
