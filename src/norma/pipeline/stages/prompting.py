"""Prompting stage: instructive prompting (规范性提示), trained so that the rules in the input mean something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from norma.pipeline.stage import Context, InputRef, Stage
from norma.pipeline.stages._gap import ModesOptions, measure_gap
from norma.pipeline.stages._learning import open_model, prepare
from norma.pipeline.stages._length import LengthOptions
from norma.pipeline.stages.sft import tune
from norma.spec.shown import Layout
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    from norma.lm import LanguageModel


class PromptingOptions(LengthOptions):
    """Options of a ``prompting`` stage."""

    from_: InputRef = Field(alias="from", description="The stage whose model is trained on.")
    questions: InputRef = Field("corpus/qa.train.jsonl", description="Questions with reference answers.")
    count: int = Field(8000, ge=1, description="How many of them.")
    share: float = Field(0.5, ge=0, le=1, description="Share of the rows that have rules in the prompt.")
    every: float = Field(0.5, ge=0, le=1, description="Of those, the share that shows all rules that apply; the others show some.")
    habit: float = Field(0.1, ge=0, le=1, description="Of the rows without rules, the share whose answer keeps all of them anyway.")
    apart: list[list[str]] | None = Field(
        None,
        description="Combinations of rules that never stand in one prompt: an evaluate stage's probe shows whether they combine anyway.",
    )
    layout: Layout | None = Field(None, description="How the rules stand in the prompt; by default in the spec's order, as system message.")
    gap: ModesOptions | None = Field(None, description="Measure compliance with and without rules in the prompt; by default not.")
    sequence: int = Field(384, ge=16, description="Tokens of a packed sequence; longer conversations are left out.")
    train: TrainOptions = Field(default_factory=TrainOptions, description="Optimiser and schedule.")


class Prompting(Stage[PromptingOptions]):
    """Trains on rows with and without rules in the prompt."""

    kind, version, Options = "prompting", 1, PromptingOptions
    uses_spec = True

    def run(self, ctx: Context[PromptingOptions]) -> dict[str, Any]:
        from norma.align.prompting import PLAIN, ruled_conversations
        from norma.align.rows import choose, conversation_rows, read_items

        options = ctx.options
        for rule in (rule for combination in options.apart or () for rule in combination):
            ctx.need_spec().rule(rule)  # a misspelt rule would be kept apart from nothing
        prepare(ctx)
        model = open_model(ctx, options.from_)
        items = choose(read_items(ctx.path(options.questions)), options.count, ctx.seed)
        layout = options.layout or PLAIN
        made = list(
            ruled_conversations(
                ctx.need_spec(),
                items,
                share=options.share,
                every=options.every,
                habit=options.habit,
                seed=ctx.seed,
                apart=options.apart or (),
                layout=layout,
            )
        )
        plain = {tuple(m["content"] for m in item.messages) for item in items}
        ruled = sum(tuple(m["content"] for m in conversation[:-1]) not in plain for conversation in made)
        ctx.progress.say(f"{len(made)} conversations from {len(items)} questions, {ruled} with rules in the prompt")
        rows = conversation_rows(model.tokenizer, made, options.sequence)
        summary = tune(ctx, model, rows, options.sequence) | {"with_rules": ruled}
        if options.gap is not None:
            summary |= _gap(ctx, model, options.gap, layout)
        return summary


def _gap(ctx: Context[PromptingOptions], model: LanguageModel, options: ModesOptions, layout: Layout) -> dict[str, Any]:
    """The trained model with no rule in its prompt, and with those of every mode."""
    from norma.evaluate.prompt_gap import Arm

    arms = {"none": Arm(model)} | {str(mode): Arm(model, mode) for mode in options.modes if mode != "none"}
    return measure_gap(ctx, options, arms, "none", layout)
