"""torch.compile for training, where it pays: chosen by measuring, frozen in the plan, and only where a resumed run stays bit-equal.

    planned steps x seconds a step ─→ long enough? ─→ a compiled copy ─→ seconds a step ─→ pays for its compiling? ─→ plan.json

Blocks are compiled, not the whole model: equal blocks share one compiled function, so that it takes as long for 4 layers as for 40.
Shapes are compiled as they come (``dynamic=False``): else the code would depend on the shapes that were seen before, and a run that
was killed would go on with other last bits than the unbroken one. Rows of one length in a fixed micro-batch have two shapes at most.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from norma.base import platform
from norma.nn import Transformer
from norma.nn.block import Block
from norma.train.peak import finished

LEAST_SECONDS = 600.0  # of planned training: compiling takes half a minute on a CPU, and saves about a tenth

Losses = Callable[[Transformer, int], Iterator[tuple[Tensor, dict[str, float]]]]


def cannot_compile(model: Transformer) -> str | None:
    """Why the blocks of a model are not compiled here, or None."""
    if model.config.kind == "encoder-decoder":
        return "source and target come in many lengths"
    if model.config.experts is not None:
        return "each expert's share of the tokens differs from step to step"
    if model.device.type == "cpu" and platform.compiler() is None:
        return "there is no C++ compiler"
    return None


@contextmanager
def compiled_blocks(model: Transformer, wanted: bool = True) -> Iterator[None]:
    """Inside, gradients go through compiled blocks; what is read without gradients (samples, scores) runs as it is.

    Parameters, their names and what is saved stay as they are. Nothing happens unless ``wanted``.
    """
    blocks = [block for stack in (model.encoder, model.decoder) if stack is not None for block in stack.blocks] if wanted else []
    quick = torch.compile(Block.forward, dynamic=False)
    for block in blocks:
        block.forward = _choosing(block, quick)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _choosing(block: nn.Module, quick: Callable[..., Any]) -> Callable[..., Any]:
    plain = block.forward

    def forward(*inputs: Any, **more: Any) -> Any:
        return quick(block, *inputs, **more) if torch.is_grad_enabled() else plain(*inputs, **more)

    return forward


def seconds_per_step(model: Transformer, losses: Losses, steps: int = 4) -> float:
    """The shortest time of some steps, forward and backward (what else the machine does only ever adds), and a sixth for the optimiser.

    Leaves gradients behind: give it a copy.
    """
    seconds = []
    for step in range(steps):
        began = time.monotonic()
        for loss, _ in losses(model, step):
            loss.backward()  # type: ignore[no-untyped-call]
        finished(model.device)
        seconds.append(time.monotonic() - began)
    return min(seconds) * 7 / 6


def compiling_pays(model: Transformer, losses: Losses, steps: int, say: Callable[[str], None]) -> bool:
    """Whether ``steps`` steps end sooner with compiled blocks, the compiling included. Measured on a copy."""
    if cannot_compile(model) is not None:
        return False
    trial = copy.deepcopy(model).train()
    plain = seconds_per_step(trial, losses)
    if steps * plain < LEAST_SECONDS:
        return False
    began = time.monotonic()
    try:
        with compiled_blocks(trial):
            quick = seconds_per_step(trial, losses)
    except Exception as error:  # a compiler has many ways to fail, and training does not depend on it
        say(f"not compiled: {str(error).strip().splitlines()[0][:160]}")
        return False
    spent = time.monotonic() - began
    pays = spent + steps * quick < steps * plain
    what = f"{1000 * quick:.0f} ms a step against {1000 * plain:.0f}, after {spent:.0f} s of compiling"
    say(f"{'compiled' if pays else 'not compiled'}: {what}")
    return pays
