"""Pretrain stage: a Transformer from nothing (or one that goes on), by next tokens of rows, or by a mix of objectives over token shards.

rows ─→ packed batches ─┐
shards ─→ mix ──────────┴─→ losses(step) ─→ train ─→ model folder
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from norma.base.ranks import ALONE, Ranks
from norma.pipeline.stage import Context, InputRef, Stage
from norma.pipeline.stages._dialling import DialOptions, ModelOptions, dialled
from norma.pipeline.stages._fitting import StepLosses, fit
from norma.pipeline.stages._learning import Source, load_rows, open_model, prepare, save_model, scoring, validation_texts
from norma.pipeline.stages._length import Work, flops_per_step, plan_compile, plan_micro, plan_steps, shrinking
from norma.pipeline.stages._mixing import MixOptions, held_out, pretraining

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from norma.lm import LanguageModel
    from norma.nn import Transformer
    from norma.text.tokenizer import Tokenizer
    from norma.train.calibrate import MicroBatch


class PretrainOptions(DialOptions):
    """Options of a ``pretrain`` stage."""

    tokenizer: InputRef = Field("tokenizer", description="The tokenizer stage.")
    from_: InputRef | None = Field(None, alias="from", description="A stage whose model goes on learning, instead of a new one.")
    data: list[Source] = Field(default_factory=list, description="What is read: text rows, and conversations as text. Or mix:")
    mix: list[MixOptions] = Field(default_factory=list, description="Objectives over token shards, by weight; instead of data.")
    turns: Literal["row", "step"] = Field("row", description="Objectives of a mix share each step's rows, or take turns by whole steps.")
    validation: InputRef = Field("corpus/text.validation.jsonl", description="Text rows on which bits per byte are measured.")
    validation_bytes: int = Field(200_000, ge=1000, description="How much of it.")

    @model_validator(mode="after")
    def _one(self) -> PretrainOptions:
        if bool(self.data) == bool(self.mix):
            raise ValueError("give one of data (rows) and mix (objectives over token shards)")
        if self.from_ is not None and (self.size or self.budget or "model" in self.model_fields_set):
            raise ValueError("a model that goes on learning (from) has its shape already: leave out model, size and budget")
        return self

    def shards(self) -> list[str]:
        return list(dict.fromkeys(part.shards for part in self.mix if part.objective != "given"))


class Pretrain(Stage[PretrainOptions]):
    """Trains from nothing and says bits per byte (or the masked loss) on validation text before and after."""

    kind, version, parallel, Options = "pretrain", 2, True, PretrainOptions

    def run(self, ctx: Context[PretrainOptions]) -> dict[str, Any]:
        from dataclasses import replace
        from functools import partial

        from norma.evaluate.samples import show_progress
        from norma.text.tokenizer import Tokenizer
        from norma.train.peak import matmul_peak

        dtype, tokenizer = prepare(ctx), Tokenizer.load(ctx.path(ctx.options.tokenizer))
        ctx = replace(ctx, options=dialled(ctx, tokenizer, dtype), ranks=ctx.ranks.grouped(ctx.options.train.tensor_parallel))
        options = ctx.options
        model = new_model(options.model, tokenizer, ctx.seed, ctx.name) if options.from_ is None else open_model(ctx, options.from_)
        config = model.config
        if config.norm_placement == "post" and config.kind == "encoder":
            options = _calmed(options)
            ctx = replace(ctx, options=options)
        micro = plan_micro(ctx, options, config, options.sequence, dtype)
        ctx.progress.say(f"{config.family} with {config.parameters() / 1e6:.2f} M parameters")
        work, losses = _from_rows(ctx, model, dtype, micro) if options.data else _from_shards(ctx, model, dtype, micro, steps=1)
        score = partial(_score, ctx, model, dtype)
        before = ctx.plan.choose("score_before", score)
        steps = plan_steps(ctx, options, model, work, losses, micro)
        if options.mix:  # now that the length is known, what changes over the training can
            work, losses = _from_shards(ctx, model, dtype, micro, steps=steps)
        arithmetic = flops_per_step(work, config)
        compiled = plan_compile(ctx, model, losses, steps)
        last = fit(
            ctx,
            model,
            losses,
            steps=steps,
            compiled=compiled,
            shrink=shrinking(ctx, micro),
            sample=partial(show_progress, model, ctx.path(options.validation)) if options.train.sample_every else None,
            flops_per_step=arithmetic,
            peak_flops=ctx.plan.choose("peak_flops", partial(matmul_peak, dtype, str(model.transformer.device))),
        )
        if not ctx.ranks.first:
            return {}
        after = score()
        for name, value in after.items():
            ctx.progress.say(f"{name.replace('_', ' ')} on validation text: {before[name]:.3f} before, {value:.3f} after")
        save_model(ctx, model, steps=steps, flops=steps * arithmetic)
        scores = {name: {"before": before[name], "after": value} for name, value in after.items()}
        return {"model": True, "parameters": config.parameters(), "steps": steps, "loss": last.get("loss"), **scores}


# Where norms stand behind the residual sum, gradients near the output begin large (Xiong et al., 2002.04745). BERT at the rates of other
# models learns the frequencies of words and stays there; the first GPT bears them (both measured, docs/pretraining.md).
POST_NORM_ENCODER = {"learning_rate": 1e-3, "matrix_learning_rate": 3e-3, "warmup": 50}


def _calmed(options: PretrainOptions) -> PretrainOptions:
    """``options`` with the rates of a post-norm encoder, where the recipe gives none."""
    rates = {name: value for name, value in POST_NORM_ENCODER.items() if name not in options.train.model_fields_set}
    return options.model_copy(update={"train": options.train.model_copy(update=rates)})


def new_model(shape: ModelOptions, tokenizer: Tokenizer, seed: int, name: str) -> LanguageModel:
    """A model of this shape with new weights, which follow from the seed."""
    from dataclasses import replace

    import torch

    from norma.base.platform import working_device
    from norma.lm import LanguageModel
    from norma.nn import Transformer, preset, with_head

    sizes = {"width": shape.width, "layers": shape.layers, "head_size": shape.head_size, "max_positions": shape.max_positions}
    config = preset(shape.preset, vocab_size=len(tokenizer), **sizes, **shape.settings)
    config = config if shape.head == config.head else with_head(config, shape.head)
    config = config if shape.dropout is None else replace(config, dropout=shape.dropout)
    transformer = Transformer(config).initialise(torch.Generator().manual_seed(seed)).to(working_device())
    return LanguageModel(transformer.eval(), tokenizer, name=name)


def _from_rows(ctx: Context[PretrainOptions], model: LanguageModel, dtype: torch.dtype, micro: MicroBatch) -> tuple[Work, StepLosses]:
    """Rows of text and conversations, each whole, packed: the generative objective."""
    from norma.text.packing import Batches
    from norma.train.step import language_losses

    options, tokenizer = ctx.options, model.tokenizer
    rows = load_rows(ctx, tokenizer, options.data, options.sequence)
    batches = Batches(rows, length=options.sequence, size=options.batch, seed=ctx.seed, pad=tokenizer.pad_id)
    ctx.progress.say(f"{len(rows.tokens) / 1e6:.2f} M tokens in {len(rows)} rows")
    how = scoring(options.train, model.tokenizer)

    def losses(network: Transformer, step: int, ranks: Ranks = ALONE) -> Iterator[tuple[Tensor, dict[str, float]]]:
        return language_losses(network, batches, step, micro=micro.rows, dtype=dtype, ranks=ranks, scoring=how)

    return batches, losses


def _from_shards(
    ctx: Context[PretrainOptions], model: LanguageModel, dtype: torch.dtype, micro: MicroBatch, *, steps: int
) -> tuple[Work, StepLosses]:
    """Objectives over token shards."""
    options = ctx.options
    shape = {"length": options.sequence, "size": options.batch, "steps": steps}
    work = pretraining(ctx, options.mix, model.tokenizer, model.config, turns=options.turns, **shape)
    how = scoring(options.train, model.tokenizer)

    def losses(network: Transformer, step: int, ranks: Ranks = ALONE) -> Iterator[tuple[Tensor, dict[str, float]]]:
        return work.losses(network, step, micro=micro.rows, dtype=dtype, ranks=ranks, scoring=how)

    return work, losses


def _score(ctx: Context[PretrainOptions], model: LanguageModel, dtype: torch.dtype) -> dict[str, float]:
    """Bits per byte of what can write text; of an encoder, nats a masked token; of two stacks, nats a target of their objectives."""
    from norma.evaluate.likelihood import bits_per_byte, masked_nats, stream_nats

    if model.config.kind == "encoder-decoder":
        options = ctx.options
        streams = held_out(ctx, options.mix, model.tokenizer, model.config, length=options.sequence)
        rows = max(16, options.validation_bytes // (4 * options.sequence))  # about four bytes a token
        return {f"{stream.name}_nats": stream_nats(model, stream, min(rows, len(stream)), dtype=dtype) for stream in streams}
    texts = validation_texts(ctx.path(ctx.options.validation), ctx.options.validation_bytes)
    if model.config.kind == "encoder":
        return {"masked_nats": masked_nats(model, texts, length=ctx.options.sequence, dtype=dtype)}
    length = min(256, ctx.options.sequence)  # never longer than what it was trained on
    return {"bits_per_byte": bits_per_byte(model, texts, length=length, dtype=dtype)}
