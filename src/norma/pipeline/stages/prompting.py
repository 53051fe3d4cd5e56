"""Prompting stage: instructive prompting (规范性提示), trained so that the rules in the input mean something."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from norma.pipeline.stage import Context, InputRef, Stage
from norma.pipeline.stages._learning import LengthOptions, open_model, prepare
from norma.pipeline.stages.sft import tune
from norma.train.options import TrainOptions


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
    sequence: int = Field(384, ge=16, description="Tokens of a packed sequence; longer conversations are left out.")
    train: TrainOptions = Field(default_factory=TrainOptions, description="Optimiser and schedule.")


class Prompting(Stage[PromptingOptions]):
    """Trains on rows with and without rules in the prompt."""

    kind, version, Options = "prompting", 1, PromptingOptions
    uses_spec = True

    def run(self, ctx: Context[PromptingOptions]) -> dict[str, Any]:
        from norma.align.prompting import ruled_conversations
        from norma.align.rows import choose, conversation_rows, read_items

        options = ctx.options
        for rule in (rule for combination in options.apart or () for rule in combination):
            ctx.need_spec().rule(rule)  # a misspelt rule would be kept apart from nothing
        prepare(ctx)
        model = open_model(ctx, options.from_)
        items = choose(read_items(ctx.path(options.questions)), options.count, ctx.seed)
        made = list(
            ruled_conversations(
                ctx.need_spec(),
                items,
                share=options.share,
                every=options.every,
                habit=options.habit,
                seed=ctx.seed,
                apart=options.apart or (),
            )
        )
        ruled = sum(m[0]["role"] == "system" for m in made)
        ctx.progress.say(f"{len(made)} conversations from {len(items)} questions, {ruled} with rules in the prompt")
        rows = conversation_rows(model.tokenizer, made, options.sequence)
        return tune(ctx, model, rows, options.sequence, options.train) | {"with_rules": ruled}
