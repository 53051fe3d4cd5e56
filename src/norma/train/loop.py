"""The training loop: the same for every objective.

    losses(step) ─→ backward ─→ clip ─→ guard ─→ optimisers ─→ average ─→ metrics.jsonl ─→ sample ─→ checkpoint
                                          └─→ stop, skip, or go back to a checkpoint

``losses(step)`` yields the parts of one step's loss; each is differentiated before the next is made, so memory holds one
micro-batch. Whatever it does (read a packed batch, sample rollouts) must depend on the step, the seed and the weights alone:
then a killed run and an unbroken one end bit-identical. Torch's own random numbers (dropout) are made to: they are seeded by
(seed, step) before each step.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from norma.base.errors import NormaError
from norma.base.progress import Progress
from norma.base.ranks import ALONE, Ranks, total
from norma.train.averaging import WeightAverage
from norma.train.balance import balance, reset
from norma.train.calibrate import out_of_memory
from norma.train.checkpoint import Checkpoints
from norma.train.guard import Guard
from norma.train.metrics import RunLog
from norma.train.optimiser import group_rows, make_optimisers, schedule_factor, set_learning_rate
from norma.train.options import TrainOptions
from norma.train.sinks import open_sinks
from norma.train.spread import agree, whole
from norma.train.stopping import StopRequest
from norma.train.tensor_parallel import clip_gradient

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
    seed: int = 0,
    flops_per_step: float | None = None,
    peak_flops: float | None = None,
    sample: Callable[[int], str] | None = None,
    name: str | None = None,
    ranks: Ranks = ALONE,
    shrink: Callable[[], str | None] | None = None,
    until: Callable[[int], bool] | None = None,
) -> dict[str, float]:
    """Run steps 0 to ``steps`` - 1, or what is left of them after a kill; returns the numbers of the last step that counted.

    Args:
        model: its parameters are changed in place.
        losses: the parts of a step's loss and their numbers (``loss``, ``tokens``, ... are summed over the parts). With ``nats`` and
            ``bytes``, sums over the targets, a row says bits per byte.
        folder: ``metrics.jsonl``, ``samples.jsonl`` and the checkpoints live here.
        state: JSON values that belong to the run (multipliers, ...); saved and restored with the weights.
        seed: of torch's random numbers within a step.
        flops_per_step, peak_flops: with both, a row says what share of the machine's peak was reached (``norma.train.peak``).
        sample: step -> text, asked for every ``options.sample_every`` steps, the model in evaluation mode.
        name: what the run is called in sinks (default: the folder's name).
        ranks: the processes that train together. ``losses`` gives this rank's part times the number of readers, and numbers that add
            up over them; the first writes rows, and ``sample`` is asked for only when it is alone.
        shrink: called when memory did not suffice for a step: makes ``losses`` take less at one time and says what it did, or None
            when there is nothing left to do. The step is then done again. Several ranks stop instead: the others would wait.
        until: asked before each step, with the number of steps done: True ends the training. What it remembers belongs into ``state``
            (``norma.train.early``). For one rank.

    Raises:
        NormaError: naming the step, when the loss or the gradient is not finite or leaps and the options say stop; on a full disk.
        KeyboardInterrupt, SystemExit: after Ctrl-C or SIGTERM, when the step is done and saved (see ``norma.train.stopping``).
    """
    state = {} if state is None else state
    folder.mkdir(parents=True, exist_ok=True)
    optimisers = make_optimisers(
        model,
        kind=options.optimiser,
        learning_rate=options.learning_rate,
        matrix_learning_rate=options.matrix_learning_rate,
        weight_decay=options.weight_decay,
        epsilon=options.epsilon,
    )
    average = WeightAverage(model, options.ema) if options.ema is not None else None
    guard = Guard(options)
    saved = Checkpoints(folder, options, model, optimisers, average, guard, state, progress.say, ranks)
    step = saved.restore()
    progress.say(f"going on at step {step} of {steps}" if step else "; ".join(map(str, group_rows(optimisers))))
    config = {**options.model_dump(exclude={"sinks"}), "steps": steps}
    sinks = open_sinks(options.sinks if ranks.first else [], folder, step, name=name or folder.name, config=config)
    peak_flops = peak_flops and peak_flops * ranks.count
    written = RunLog(folder, steps, progress, sinks, flops_per_step=flops_per_step, peak_flops=peak_flops, silent=not ranks.first)
    last = written.begin(step)
    if options.on_spike == "rollback":
        saved.save(step)  # there is always somewhere to go back to
    model.train()
    model.zero_grad(set_to_none=True)  # what an interrupted step left behind
    began = saved_at = time.monotonic()
    stop = StopRequest()
    with torch.random.fork_rng(devices=[]), written, stop:
        asked = False
        while step < steps and not asked and not (until is not None and until(step)):
            clock = time.monotonic()
            offender = guard.passed(step)
            if offender is not None:
                written.skip(step, guard.offences[offender] if offender == step else f"passed over for step {offender}")
            else:
                before = copy.deepcopy(state)
                factor = schedule_factor(
                    step, steps=steps, warmup=options.warmup, kind=options.schedule, decay_share=options.decay_share, floor=options.floor
                )
                set_learning_rate(optimisers, factor)
                numbers = _within_memory(model, losses, step, seed, options.clip, ranks, shrink, progress)
                loss, norm = numbers.get("loss"), numbers["gradient_norm"]
                why = guard.judge(loss, norm)
                if why is None:
                    guard.accept(loss)
                    for optimiser in optimisers:
                        optimiser.step()
                    agree(model, ranks)
                    balance(model, ranks)
                    if average is not None:
                        average.update(model)
                    numbers["learning_rate"] = options.learning_rate * factor
                    last = written.step(step, numbers, time.monotonic() - clock)
                    saved.latest |= {k: v for k, v in last.items() if math.isfinite(v)}
                else:
                    state.clear()
                    state.update(before)
                    progress.say(f"step {step} does not count: {why}")
                    written.skip(step, why, numbers)
                    guard.offend(step, why, folder)
                model.zero_grad(set_to_none=True)
                if why is not None and options.on_spike == "rollback":
                    step = saved.restore(at_most=guard.first(step))
                    last = written.begin(step)
                    progress.say(f"back to step {step}; {guard.reach} steps are passed over")
                    continue
            step += 1
            if sample is not None and ranks.count == 1 and options.sample_every and step % options.sample_every == 0:
                model.eval()
                with torch.no_grad():
                    written.sample(step - 1, sample(step - 1))
                model.train()
            due = time.monotonic() - saved_at > options.checkpoint_seconds or (options.keep_every and step % options.keep_every == 0)
            # Clocks and signals differ from rank to rank: all do what the first finds due, and stop when one is asked to.
            turns = ranks.gather((due, stop.asked, saved.written))
            due, asked = turns[0][0], any(turn[1] for turn in turns)
            if asked or (due and step < steps):
                written.sync()
                saved.save(step)
                saved_at = time.monotonic()
            elif all(turn[2] for turn in turns):
                saved.settle()
        saved.settle()
        if stop.asked:
            progress.say(f"stopped after step {step} of {steps}, which is saved: the same command goes on from here")
    stop.obey()
    if average is not None and options.averaged:
        average.copy_to(model)
    model.eval()
    state["seconds"] = time.monotonic() - began
    return last


def _within_memory(
    model: nn.Module,
    losses: Losses,
    step: int,
    seed: int,
    clip: float,
    ranks: Ranks,
    shrink: Callable[[], str | None] | None,
    progress: Progress,
) -> dict[str, float]:
    """:func:`_gradient`, again with less at one time where memory does not suffice."""
    while True:
        try:
            return _gradient(model, losses, step, seed, clip, ranks)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            done = shrink() if shrink is not None and ranks.count == 1 else None
            if done is None:
                mend = "Make sequence or the model smaller, or say train.recompute: true"
                raise NormaError(f"step {step}: memory does not suffice ({str(error).splitlines()[0][:120]})", mend=mend) from None
        # Outside the handler: the error holds the frames, and they the tensors.
        model.zero_grad(set_to_none=True)
        progress.say(f"step {step}: out of memory; {done}")


def _gradient(model: nn.Module, losses: Losses, step: int, seed: int, clip: float, ranks: Ranks) -> dict[str, float]:
    """Leave the clipped gradient of a step in the parameters; returns the sums of its parts' numbers, and the norm before clipping."""
    # The CPU's generator takes 32 bits of its seed: mixed, so that all of seed, step and rank count. Who shares a layer drops the same.
    mixed = (seed, step) if ranks.reader == 0 else (seed, step, ranks.reader)
    torch.manual_seed(int(np.random.SeedSequence(mixed).generate_state(1)[0]))
    reset(model)
    parts = []
    for loss, part in losses(step):
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        parts.append(part)
    parameters = [p for p in model.parameters() if p.requires_grad]
    norm = whole(clip_gradient(parameters, clip))
    return {**ranks.total(total(parts)), "gradient_norm": float(norm)}
