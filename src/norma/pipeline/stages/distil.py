"""Distil stage: context distillation. The model learns to keep the rules without the prompt as it does with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from norma.base.files import read_jsonl, write_jsonl
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._fitting import fit
from norma.pipeline.stages._gap import GapOptions, measure_gap
from norma.pipeline.stages._learning import AdaptOptions, AnswerOptions, adapted, answering, open_model, prepare, save_model
from norma.spec.shown import Shown
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    from norma.lm import LanguageModel


class DistilOptions(AnswerOptions, AdaptOptions, StageOptions):
    """Options of a ``distil`` stage."""

    from_: InputRef = Field(
        alias="from", description="The stage whose model teaches, with rules in the prompt, and is trained without them."
    )
    questions: InputRef = Field("corpus/qa.train.jsonl", description="Questions to answer; references are not looked at.")
    count: int = Field(1000, ge=1, description="How many questions.")
    prompt: Shown = Field(default_factory=Shown, description="What the teacher is shown.")
    answers: int = Field(1, ge=1, description="The teacher's answers to each.")
    temperature: float = Field(1.0, gt=0, description="Of sampling.")
    max_new_tokens: int = Field(48, ge=1, description="Longest answer in tokens.")
    loss: Literal["kl", "sampled"] = Field(
        "kl", description="kl: the teacher's distribution of every next token of its answers; sampled: those tokens themselves."
    )
    top: int | None = Field(
        None, ge=1, description="kl: only so many of the teacher's likeliest tokens count each by itself; by default all."
    )
    epochs: float = Field(2.0, gt=0, description="Passes over the questions.")
    batch: int = Field(16, ge=1, description="Questions a step.")
    micro_tokens: int = Field(4096, ge=256, description="Padded tokens of a micro-batch.")
    gap: GapOptions | None = Field(None, description="Measure compliance before, with the rules in the prompt, and after; by default not.")
    train: TrainOptions = Field(
        default_factory=lambda: TrainOptions(optimiser="adamw", learning_rate=3e-4, weight_decay=0.0, schedule="cosine", warmup=5),
        description="Optimiser and schedule.",
    )


class Distil(Stage[DistilOptions]):
    """Distils the prompt into the weights."""

    kind, version, parallel, Options = "distil", 1, True, DistilOptions
    uses_spec = True

    def run(self, ctx: Context[DistilOptions]) -> dict[str, Any]:
        from norma.align.answers import AnswerTraining
        from norma.align.distil import Distillation, groups_of

        options = ctx.options
        dtype = prepare(ctx)
        model = answering(ctx, adapted(ctx, open_model(ctx, options.from_)))
        if ctx.ranks.first and not (ctx.folder / "answers.jsonl").exists():
            _teach(ctx, model)
        rows = ctx.ranks.tell(read_jsonl(ctx.folder / "answers.jsonl") if ctx.ranks.first else [])
        told, plain = (groups_of(model, rows, prompt) for prompt in ("told", "messages"))
        how: dict[str, Any] = {"size": options.batch, "micro_tokens": options.micro_tokens, "seed": ctx.seed, "dtype": dtype}
        training: AnswerTraining
        if options.loss == "kl":
            training = Distillation(model, told, plain, top=options.top, **how)
        else:
            training = AnswerTraining(model, plain, **how)
        steps = training.steps(options.epochs)
        ctx.progress.say(f"{steps} steps of {training.size} questions; {training.left_out} questions are too long with their answers")
        last = fit(ctx, model, training.losses, steps=steps)
        if not ctx.ranks.first:
            return {}
        summary: dict[str, Any] = {"model": True, "questions": len(training.groups), "steps": steps, "loss": last.get("loss")}
        if options.gap is not None:
            summary |= _gap(ctx, model, options.gap)
        save_model(ctx, model)
        return summary


def _teach(ctx: Context[DistilOptions], model: LanguageModel) -> None:
    """Write what the teacher answers."""
    from norma.align.distil import teach
    from norma.align.rows import choose, read_items
    from norma.base.errors import NormaError
    from norma.generate import Sampling

    options = ctx.options
    items = choose(read_items(ctx.path(options.questions)), options.count, ctx.seed)
    sampling = Sampling(options.max_new_tokens, options.temperature, seed=ctx.seed)
    rows = teach(model, ctx.need_spec(), items, options.prompt, sampling, each=options.answers, seed=ctx.seed)
    if not rows:
        mend = "Lower max_new_tokens, show fewer rules, or ask shorter questions"
        raise NormaError(f"none of the {len(items)} questions leaves room for an answer beside the rules", mend=mend)
    ctx.progress.say(f"{len(rows)} questions x {options.answers} answers with rules; {len(items) - len(rows)} are too long with the rules")
    write_jsonl(ctx.folder / "answers.jsonl", rows)


def _gap(ctx: Context[DistilOptions], model: LanguageModel, options: GapOptions) -> dict[str, Any]:
    """Before without rules, before with them (the teacher), after without them."""
    from norma.evaluate.prompt_gap import Arm

    before, rules = open_model(ctx, ctx.options.from_), ctx.options.prompt.rules
    arms = {
        "before": Arm(before),
        "with rules": Arm(before, rules if isinstance(rules, str) else tuple(rules)),
        "distilled": Arm(model),
    }
    return measure_gap(ctx, options, arms, "before", ctx.options.prompt)
