"""Pretrain stage: a Transformer from nothing, next-token objective (生成式预训练)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from norma.pipeline.stage import Context, InputRef, Stage
from norma.pipeline.stages._learning import LengthOptions, Source, load_rows, plan_steps, prepare, save_model, validation_texts
from norma.train.options import TrainOptions


class ModelOptions(BaseModel):
    """The shape of a new model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str = Field("llama", description="Family: the layout the model is written in.")
    width: int = Field(256, ge=32, description="Features of a token.")
    layers: int = Field(6, ge=1, description="Blocks.")
    head_size: int = Field(64, ge=8, description="Features of one attention head.")
    max_positions: int = Field(512, ge=32, description="Longest sequence in tokens.")


class PretrainOptions(LengthOptions):
    """Options of a ``pretrain`` stage."""

    tokenizer: InputRef = Field("tokenizer", description="The tokenizer stage.")
    data: list[Source] = Field(description="What is read: text rows, and conversations as text.")
    validation: InputRef = Field("corpus/text.validation.jsonl", description="Text rows on which bits per byte are measured.")
    validation_bytes: int = Field(200_000, ge=1000, description="How much of it.")
    model: ModelOptions = Field(default_factory=ModelOptions, description="The shape of the model.")
    sequence: int = Field(256, ge=16, description="Tokens of a packed sequence.")
    train: TrainOptions = Field(default_factory=TrainOptions, description="Optimiser and schedule.")


class Pretrain(Stage[PretrainOptions]):
    """Trains from nothing and says bits per byte on validation text before and after."""

    kind, version, Options = "pretrain", 1, PretrainOptions

    def run(self, ctx: Context[PretrainOptions]) -> dict[str, Any]:
        from functools import partial

        import torch

        from norma.evaluate.likelihood import bits_per_byte
        from norma.lm import LanguageModel
        from norma.nn import Transformer, preset
        from norma.text.packing import Batches
        from norma.text.tokenizer import Tokenizer
        from norma.train import train
        from norma.train.step import language_losses

        options = ctx.options
        dtype = prepare(ctx)
        tokenizer = Tokenizer.load(ctx.path(options.tokenizer))
        shape = options.model
        config = preset(
            shape.preset,
            vocab_size=len(tokenizer),
            width=shape.width,
            layers=shape.layers,
            head_size=shape.head_size,
            max_positions=shape.max_positions,
        )
        model = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(ctx.seed)), tokenizer, name=ctx.name)
        rows = load_rows(ctx, tokenizer, options.data, options.sequence)
        batches = Batches(rows, length=options.sequence, size=options.batch, seed=ctx.seed, pad=tokenizer.pad_id)
        ctx.progress.say(
            f"{shape.preset} with {config.parameters() / 1e6:.2f} M parameters; {len(rows.tokens) / 1e6:.2f} M tokens in {len(rows)} rows"
        )
        texts = validation_texts(ctx.path(options.validation), options.validation_bytes)
        before = ctx.plan.choose("bits_per_byte_before", lambda: bits_per_byte(model, texts, dtype=dtype))
        steps = plan_steps(ctx, options, model, batches, dtype)
        losses = partial(language_losses, model.transformer, batches, micro=options.micro_batch, dtype=dtype)
        last = train(model.transformer, losses, steps=steps, options=options.train, folder=ctx.folder, progress=ctx.progress)
        after = bits_per_byte(model, texts, dtype=dtype)
        ctx.progress.say(f"bits per byte on validation text: {before:.3f} before, {after:.3f} after")
        save_model(ctx, model)
        return {
            "model": True,
            "parameters": config.parameters(),
            "steps": steps,
            "loss": last.get("loss"),
            "bits_per_byte": {"before": before, "after": after},
        }
