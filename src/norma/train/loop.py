"""The training loop: the same for every objective.

``losses(step)`` yields the parts of one step's loss; each is differentiated before the next is made, so memory holds one
micro-batch. Whatever it does (read a packed batch, sample rollouts) must depend on the step, the seed and the weights alone:
then a killed run and an unbroken one end bit-identical.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from norma.base.errors import NormaError
from norma.base.files import disk_errors, write_text
from norma.base.progress import Progress
from norma.train import checkpoint
from norma.train.optimiser import make_optimisers, schedule_factor, set_learning_rate
from norma.train.options import TrainOptions

Losses = Callable[[int], Iterator[tuple[Tensor, dict[str, float]]]]


def train(
    model: nn.Module,
    losses: Losses,
    *,
    steps: int,
    options: TrainOptions,
    folder: Path,
    progress: Progress,
    state: dict[str, Any] | None = None,
) -> dict[str, float]:
    """Run steps 0 to ``steps`` - 1, or what is left of them after a kill; returns the last step's numbers.

    Args:
        model: its parameters are changed in place.
        losses: the parts of a step's loss and their numbers (``loss``, ``tokens``, ... are summed over the parts).
        folder: ``metrics.jsonl`` and the checkpoints live here.
        state: JSON values that belong to the run (multipliers, ...); saved and restored with the weights.

    Raises NormaError naming the step when the loss is not finite.
    """
    state = {} if state is None else state
    optimisers = make_optimisers(
        model,
        kind=options.optimiser,
        learning_rate=options.learning_rate,
        matrix_learning_rate=options.matrix_learning_rate,
        weight_decay=options.weight_decay,
    )
    folder.mkdir(parents=True, exist_ok=True)
    done, saved = checkpoint.restore(folder, model, optimisers)
    state.update(saved)
    metrics = folder / "metrics.jsonl"
    last = _cut_metrics(metrics, done)
    if done:
        progress.say(f"going on at step {done} of {steps}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.train()
    model.zero_grad(set_to_none=True)  # what an interrupted step left behind
    began = saved_at = time.monotonic()
    with disk_errors(metrics), metrics.open("a", encoding="utf-8") as log:
        for step in range(done, steps):
            clock = time.monotonic()
            set_learning_rate(optimisers, schedule_factor(step, steps=steps, warmup=options.warmup, kind=options.schedule))
            numbers: dict[str, float] = {}
            for loss, part in losses(step):
                loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
                for key, value in part.items():
                    numbers[key] = numbers.get(key, 0.0) + value
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, options.clip))
            if not math.isfinite(norm):
                raise NormaError(
                    f"the gradient is not finite at step {step}", where=folder, mend="Lower the learning rate; nothing was saved after it"
                )
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            numbers["gradient_norm"] = norm
            seconds = time.monotonic() - clock
            log.write(json.dumps({"step": step, **numbers, "seconds": round(seconds, 4)}) + "\n")
            log.flush()
            shown = dict(numbers)
            if "tokens" in shown:
                shown["tokens_per_s"] = shown.pop("tokens") / seconds
            progress.update(step + 1, steps, **shown)
            last = numbers
            if step + 1 < steps and time.monotonic() - saved_at > options.checkpoint_seconds:
                os.fsync(log.fileno())
                checkpoint.save(folder, step + 1, model, optimisers, state)
                saved_at = time.monotonic()
    model.eval()
    state["seconds"] = time.monotonic() - began
    return last


def _cut_metrics(path: Path, done: int) -> dict[str, float]:
    """Drop the rows of steps that will be done again (and a half-written last line); returns the last row that stays."""
    if not path.exists():
        return {}
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] < done:
                kept.append(line)
        except json.JSONDecodeError:
            break
    write_text(path, "".join(line + "\n" for line in kept))
    return {} if not kept else {k: v for k, v in json.loads(kept[-1]).items() if k not in ("step", "seconds")}
