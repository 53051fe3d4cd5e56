"""Early stopping: the best weights are kept, training ends in time, and a killed run ends as an unbroken one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from norma.base.progress import Silent
from norma.train import TrainOptions, train
from norma.train.early import BEST, EarlyStopping

OPTIONS = TrainOptions(optimiser="adamw", learning_rate=0.1, weight_decay=0.0, warmup=0, schedule="constant", checkpoint_seconds=1e-9)


class Point(nn.Module):
    """One number that walks from 0 towards 5; the best place is 2."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(1, 2))


def losses(model: Point) -> Any:
    def step(number: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        loss = (model.x - 5).square().sum()
        yield loss, {"loss": float(loss.detach())}

    return step


def run(folder: Path, *, patience: int | None, die_at: int | None = None, measured: list[int] | None = None) -> tuple[float, int]:
    model, state = Point(), dict[str, Any]()

    def measure() -> float:
        if measured is not None:
            measured.append(1)
        return -float((model.x.mean() - 2).abs())

    folder.mkdir(exist_ok=True)
    stopping = EarlyStopping(model, measure, every=4, patience=patience, state=state, folder=folder)

    def until(step: int) -> bool:
        if step == die_at:
            raise KeyboardInterrupt
        return stopping(step)

    train(model, losses(model), steps=60, options=OPTIONS, folder=folder, progress=Silent(), state=state, until=until)
    step, _ = stopping.finish(60)
    return float(model.x.mean()), step


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    x, step = run(tmp_path / "a", patience=None)
    assert abs(x - 2) < 0.25 and step % 4 == 0 and step < 60
    calls: list[int] = []
    assert run(tmp_path / "b", patience=2, measured=calls) == (x, step)
    assert len(calls) == step // 4 + 2, "two measurements after the best, then it ends"


@pytest.mark.parametrize("die_at", [3, 9, 17, 21, 22])
@pytest.mark.parametrize("patience", [2, None])
def test_a_killed_run_ends_alike(tmp_path: Path, die_at: int, patience: int | None) -> None:
    whole = run(tmp_path / "whole", patience=patience)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", patience=patience, die_at=die_at)
    assert run(tmp_path / "killed", patience=patience) == whole
    assert (tmp_path / "killed" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


def test_a_short_run_is_measured_at_its_end(tmp_path: Path) -> None:
    model, state = Point(), dict[str, Any]()
    stopping = EarlyStopping(model, lambda: 1.0, every=100, patience=1, state=state, folder=tmp_path)
    train(model, losses(model), steps=3, options=OPTIONS, folder=tmp_path, progress=Silent(), state=state, until=stopping)
    assert stopping.finish(3) == (3, 1.0)
    stopping.remove()
    assert not (tmp_path / BEST).exists()
