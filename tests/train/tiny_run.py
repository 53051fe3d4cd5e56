"""A model of nine numbers, for tests of what happens around the steps rather than in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from norma.base.progress import Silent
from norma.train import TrainOptions, train

STEPS = 30


class Said(Silent):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shown: list[dict[str, float]] = []

    def say(self, text: str) -> None:
        if "tensors, " not in text:  # the groups of the optimiser, which every run begins with
            self.lines.append(text)

    def update(self, step: int, total: int, **numbers: float) -> None:
        self.shown.append(numbers)


def model() -> nn.Module:
    made = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        made.weight.copy_(torch.arange(9.0).reshape(3, 3) / 10)
    return made


def losses_of(
    made: nn.Module, bad: dict[int, float] | None = None, number: dict[int, float] | None = None, call: Callable[[int], Any] | None = None
) -> Callable[[int], Iterator[tuple[Tensor, dict[str, float]]]]:
    """Squared error on a batch made of the step; ``bad`` multiplies the loss of a step, ``number`` only the number that is told."""

    def losses(step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        if call:
            call(step)
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        loss = (made(x) - x.flip(1)).square().mean() * (bad or {}).get(step, 1.0)
        yield loss, {"loss": float(loss.detach()) * (number or {}).get(step, 1.0), "tokens": 12.0}

    return losses


def options_of(**changes: Any) -> TrainOptions:
    plain: dict[str, Any] = {"optimiser": "adamw", "learning_rate": 1e-2, "warmup": 2, "schedule": "constant", "checkpoint_seconds": 1e9}
    return TrainOptions.model_validate(plain | changes)


def run(
    made: nn.Module, folder: Path, options: TrainOptions, *, steps: int = STEPS, said: Said | None = None, **how: Any
) -> dict[str, float]:
    arguments = {key: how.pop(key) for key in ("bad", "number", "call") if key in how}
    return train(made, losses_of(made, **arguments), steps=steps, options=options, folder=folder, progress=said or Said(), **how)


def weights(made: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().clone() for p in made.parameters()])
