"""Supervised fine-tuning stage: conversations, loss on the assistant's words only. Instruction tuning, tasks, replay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from norma.base.ranks import ALONE, Ranks
from norma.pipeline.stage import Context, InputRef, Stage
from norma.pipeline.stages._fitting import fit
from norma.pipeline.stages._learning import AdaptOptions, Source, adapted, load_rows, open_model, prepare, save_model, scoring, show_row
from norma.pipeline.stages._length import LengthOptions, plan_compile, plan_micro, plan_steps, shrinking
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    from torch import Tensor

    from norma.lm import LanguageModel
    from norma.nn import Transformer
    from norma.train.step import Leash


class LeashChoice(BaseModel):
    """A leash to another model on the tokens that are learnt: they cost -log p + weight KL(that model || this one)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    to: InputRef = Field(description="The stage whose model is stayed near: the norm model, mostly the one that training starts from.")
    weight: float = Field(1.0, gt=0, description="Nats of loss for a nat of KL a token.")


class SftOptions(AdaptOptions, LengthOptions):
    """Options of an ``sft`` stage."""

    from_: InputRef = Field(alias="from", description="The stage whose model is trained on.")
    data: list[Source] = Field(description="Conversations to learn from; several sources are mixed by weight.")
    sequence: int = Field(256, ge=16, description="Tokens of a packed sequence; longer conversations are left out.")
    train: TrainOptions = Field(default_factory=TrainOptions, description="Optimiser and schedule.")
    leash: LeashChoice | None = Field(None, description="Stay near another model while learning (1606.09282); by default not.")


class Sft(Stage[SftOptions]):
    """Trains a model on conversations."""

    kind, version, parallel, Options = "sft", 1, True, SftOptions

    def run(self, ctx: Context[SftOptions]) -> dict[str, Any]:
        options = ctx.options
        prepare(ctx)
        model = adapted(ctx, open_model(ctx, options.from_))
        rows = load_rows(ctx, model.tokenizer, options.data, options.sequence)
        return tune(ctx, model, rows, options.sequence, leash(ctx, model, options.leash))


def leash(ctx: Context[Any], model: LanguageModel, choice: LeashChoice | None) -> Leash | None:
    """The frozen model of a leash. Raises NormaError where its vocabulary is another."""
    from norma.base.errors import NormaError
    from norma.text.tokenise import tokenizer_digest
    from norma.train.step import Leash

    if choice is None:
        return None
    near = open_model(ctx, choice.to)
    if tokenizer_digest(near.tokenizer) != tokenizer_digest(model.tokenizer):
        mend = "Let it name a stage of the same tokenizer"
        raise NormaError(f"the leash leads to a model of another tokenizer ({choice.to})", where=f"stage '{ctx.name}': leash.to", mend=mend)
    if ctx.ranks.count > 1 and ctx.options.train.tensor_parallel > 1:
        raise NormaError("a leash reads whole models", where=f"stage '{ctx.name}'", mend="Leave train.tensor_parallel at 1")
    return Leash(near.transformer.eval().requires_grad_(False), choice.weight)


def tune(ctx: Context[Any], model: Any, rows: Any, sequence: int, leash: Leash | None = None) -> dict[str, Any]:
    """Train ``model`` on packed rows, save it into the artefact, return the stage's summary."""
    from norma.text.packing import Batches
    from norma.train.step import language_losses

    options, dtype = ctx.options, prepare(ctx)
    batches = Batches(rows, length=sequence, size=options.batch, seed=ctx.seed, pad=model.tokenizer.pad_id)
    first = slice(int(rows.offsets[0]), int(rows.offsets[1]))
    show_row(ctx, model.tokenizer, rows.tokens[first].tolist(), rows.trained[first].tolist())
    ctx.progress.say(
        f"{len(rows)} rows, {100 * float(rows.trained.mean()):.0f}% of their tokens learnt, {100 * batches.waste():.1f}% padding"
    )
    how, micro = scoring(options.train, model.tokenizer), plan_micro(ctx, options, model.config, sequence, dtype)

    def losses(network: Transformer, step: int, ranks: Ranks = ALONE) -> Iterator[tuple[Tensor, dict[str, float]]]:
        return language_losses(network, batches, step, micro=micro.rows, dtype=dtype, ranks=ranks, scoring=how, leash=leash)

    steps = plan_steps(ctx, options, model, batches, losses, micro)
    compiled = plan_compile(ctx, model, losses, steps)
    last = fit(ctx, model, losses, steps=steps, compiled=compiled, shrink=shrinking(ctx, micro))
    if not ctx.ranks.first:
        return {}
    save_model(ctx, model)
    more = {} if leash is None else {"kl": last.get("kl")}
    return {"model": True, "steps": steps, "rows": len(rows), "loss": last.get("loss"), **more}
