"""How long a stage trains and in what pieces: decided once, by the recipe or by measuring, and frozen in the plan.

    epochs | steps | flops | minutes ─→ plan_steps        memory ─→ plan_micro, shrinking        speed ─→ plan_compile
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import Field

from norma.base.errors import NormaError
from norma.pipeline.stage import Context, StageOptions
from norma.pipeline.stages._fitting import StepLosses

if TYPE_CHECKING:
    import torch

    from norma.lm import LanguageModel
    from norma.nn import ModelConfig
    from norma.train.calibrate import MicroBatch
    from norma.train.options import TrainOptions


class LengthOptions(StageOptions):
    """How long to train: by epochs, steps or arithmetic, and never longer than a time on this machine."""

    epochs: float | None = Field(None, gt=0, description="Passes over the rows.")
    steps: int | None = Field(None, gt=0, description="Steps of the optimiser; goes before epochs.")
    minutes: float | None = Field(None, gt=0, description="Upper bound of the time; measured once at the start, then frozen in plan.json.")
    flops: float | None = Field(
        None, gt=0, description="Length as arithmetic, such as 1e14: forward and backward. Models that are compared get as much."
    )
    batch: int = Field(32, ge=1, description="Sequences a step.")
    micro_batch: int | None = Field(
        None, ge=1, description="Sequences that are in memory at one time, up to 16 as they fit by default; does not change the gradient."
    )


class Work(Protocol):
    """What a stage trains on: ``size`` rows of ``length`` tokens a step."""

    @property
    def size(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def steps_per_epoch(self) -> int: ...


def plan_micro(ctx: Context[Any], options: LengthOptions, config: ModelConfig, length: int, dtype: torch.dtype) -> MicroBatch:
    """Rows that are in memory at one time: what the recipe says, else by measurement, once."""
    from norma.train.calibrate import MicroBatch, micro_batch

    measured = ctx.plan.choose("micro_batch", lambda: options.micro_batch or micro_batch(config, length, options.batch, dtype))
    return MicroBatch(min(measured, options.batch))


def shrinking(ctx: Context[Any], micro: MicroBatch) -> Callable[[], str | None]:
    """What the training loop calls when memory does not suffice: half as many rows, from now on and after a resume."""

    def shrink() -> str | None:
        if not micro.halve():
            return None
        ctx.plan.change("micro_batch", micro.rows)
        return f"micro-batches of {micro.rows} from here on"

    return shrink


def plan_steps(
    ctx: Context[Any], options: LengthOptions, model: LanguageModel, batches: Work, losses: StepLosses, micro: MicroBatch
) -> int:
    """The number of steps, chosen once: what the recipe asks for, or what fits into ``minutes`` on this machine if that is less.

    ``losses`` is (model, step) → the parts of a step's loss.
    """
    asked = options.steps or (round(options.epochs * batches.steps_per_epoch) if options.epochs else None)
    if asked is None and options.flops:
        asked = max(1, round(options.flops / flops_per_step(batches, model.config)))
    if asked is None and options.minutes is None:
        raise NormaError(f"stage '{ctx.name}' does not say how long to train", mend="Add epochs, steps, flops or minutes")

    from norma.train.compiling import seconds_per_step

    def measure() -> int:
        if options.minutes is None:
            return max(1, asked or 1)
        seconds = seconds_per_step(model.copy().transformer, losses) / ctx.ranks.count  # of one rank, with the cores it will have
        fits = max(1, int(options.minutes * 60 / seconds))
        return max(1, min(asked or fits, fits))

    steps = ctx.plan.choose("steps", measure)
    table = {
        "sequences": batches.size,
        "length": batches.length,
        "processes": ctx.ranks.count,
        "steps_per_epoch": batches.steps_per_epoch,
    }
    ctx.plan.choose("batch", lambda: table)
    tokens = batches.size * batches.length
    ctx.progress.say(
        f"{steps} steps of {batches.size} sequences x {batches.length} tokens = {steps * tokens / 1e6:.2f} M tokens"
        f" ({steps / batches.steps_per_epoch:.2f} epochs, micro-batches of {micro.rows},"
        f" {ctx.ranks.count if ctx.ranks.count > 1 else 'one'} process{'es' if ctx.ranks.count > 1 else ''})"
        + (f"; {asked} were asked for, the time allows {steps}" if asked and steps < asked else "")
    )
    return steps


def flops_per_step(work: Work, config: ModelConfig) -> float:
    """Arithmetic of a step, forward and backward: as its objectives say, or of full rows of next tokens."""
    from norma.train.pretraining import Pretraining

    if isinstance(work, Pretraining):
        return work.flops_per_step(config)
    return float(work.size * work.length * config.flops_per_token(work.length))


def plan_compile(ctx: Context[Any], model: LanguageModel, losses: StepLosses, steps: int) -> bool:
    """Whether gradients go through compiled blocks: what the recipe says, else by measuring, once."""
    from norma.train.compiling import cannot_compile, compiling_pays

    training: TrainOptions = ctx.options.train
    why = "activations are made again (recompute)" if training.recompute else cannot_compile(model.transformer)
    why = "there are several processes" if ctx.ranks.count > 1 else why
    if training.compile and why is not None:
        raise NormaError(f"this model is not compiled: {why}", where=f"stage '{ctx.name}'", mend="Leave train.compile out")
    if training.compile is not None or why is not None:
        return bool(training.compile)
    return ctx.plan.choose("compile", lambda: compiling_pays(model.transformer, losses, steps, ctx.progress.say))
