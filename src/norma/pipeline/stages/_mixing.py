"""The ``mix`` of a pretrain stage: objectives over token shards, by weight; from options to what the training loop asks.

[{shards, objective, weight, ...}, ...] ─→ a stream each (norma.train.streams) ─→ Pretraining
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from norma.base.errors import NormaError
from norma.pipeline.stage import Context, InputRef

if TYPE_CHECKING:
    from norma.nn import ModelConfig
    from norma.text.shards import Shards
    from norma.text.tokenizer import Tokenizer
    from norma.train.pretraining import Pretraining
    from norma.train.streams import Stream

Objective = Literal["generative", "masked", "masked-next", "next-sentence", "sentence-order", "infilling", "spans", "denoising", "given"]
TWO_STACKS = ("spans", "denoising", "given")


class MaskOptions(BaseModel):
    """What masked objectives hide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float = Field(0.15, gt=0, le=1, description="Share of the tokens that is predicted.")
    final_rate: float | None = Field(None, gt=0, le=1, description="The share at the last step; the rate goes there in a straight line.")
    masked: float = Field(0.8, ge=0, le=1, description="Share of the predicted tokens that become the mask token.")
    replaced: float = Field(0.1, ge=0, le=1, description="Share of them that become another token; the rest stays.")
    unit: Literal["token", "word", "span"] = Field("token", description="token, word (Chinese words too), or span (runs of words).")


class SpanOptions(BaseModel):
    """What objectives of two stacks hide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float | None = Field(None, gt=0, lt=1, description="Share of the tokens; by default 0.15 of spans, 0.3 of denoising.")
    mean: float = Field(3.0, ge=1, description="Mean length of a span in tokens.")
    shuffled: bool = Field(True, description="Whether denoising puts sentences into another order.")


class GradeOptions(BaseModel):
    """How the grades of a rate stage weigh on the loss of generative rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    how: Literal["unlikelihood", "weighted"] = Field(description="unlikelihood of what is bad, or weights exp((R - 1) / beta).")
    threshold: float = Field(0.5, ge=0, le=1, description="A reward below it is bad (unlikelihood).")
    alpha: float = Field(1.0, ge=0, description="Weight of unlikelihood.")
    beta: float = Field(0.5, gt=0, description="Temperature of the weights: the smaller, the less counts what breaks a norm.")


class MixOptions(BaseModel):
    """One objective over one corpus."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shards: InputRef = Field("tokens/train", description="Token shards: a folder of a tokens stage; of given pairs a .jsonl file.")
    objective: Objective = Field(
        "generative",
        description="generative; masked (BERT); masked-next (masked, read off the place before: alternates with generative on one head);"
        " next-sentence or sentence-order (pairs, with masked); infilling; with two stacks: spans (T5), denoising (BART), or given pairs"
        " (rows with source and target, or conversations).",
    )
    weight: float = Field(1.0, gt=0, description="How often its rows come, beside the other weights.")
    mask: MaskOptions = Field(default_factory=MaskOptions, description="What masked objectives hide.")
    spans: SpanOptions = Field(default_factory=SpanOptions, description="What spans and denoising hide.")
    by_length: bool = Field(False, description="Given pairs of like length stand together: less padding, so more pairs a second.")
    grades: GradeOptions | None = Field(None, description="How norms weigh on the loss (generative, over the shards of a rate stage).")
    infilled: float = Field(0.5, gt=0, le=1, description="Share of the rows whose middle is moved to the end (infilling).")


def pretraining(
    ctx: Context[Any],
    mix: Sequence[MixOptions],
    tokenizer: Tokenizer,
    config: ModelConfig,
    *,
    length: int,
    size: int,
    steps: int,
    turns: Literal["row", "step"],
) -> Pretraining:
    """Open the shards and lay the streams beside each other. Raises NormaError where model, tokenizer and objective do not fit."""
    from norma.train.pretraining import Pretraining

    streams = [_stream(ctx, part, i, tokenizer, config, length, steps) for i, part in enumerate(mix)]
    names = [stream.name for stream in streams]
    if len(set(names)) < len(names):  # two corpora with one objective: their losses are told apart by number
        from dataclasses import replace

        streams = [replace(stream, name=f"{stream.name}.{i}") for i, stream in enumerate(streams)]  # type: ignore[type-var]
    return Pretraining(streams, [part.weight for part in mix], size=size, length=length, seed=ctx.seed, turns=turns)


def held_out(ctx: Context[Any], mix: Sequence[MixOptions], tokenizer: Tokenizer, config: ModelConfig, *, length: int) -> list[Stream]:
    """The streams of a mix over the validation side of their text, where there is one."""
    sides = [part.model_copy(update={"shards": part.shards.replace("train", "validation")}) for part in mix]
    there = [part for part in sides if part.shards.endswith(("validation", "validation.jsonl")) and ctx.path(part.shards).exists()]
    return [_stream(ctx, part, i, tokenizer, config, length, steps=1) for i, part in enumerate(there)]


def _stream(ctx: Context[Any], part: MixOptions, number: int, tokenizer: Tokenizer, config: ModelConfig, length: int, steps: int) -> Stream:
    from norma.objectives.conditional import ByGrade
    from norma.objectives.infilling import ADDED, Sentinels
    from norma.objectives.masking import Masking, MaskTokens
    from norma.objectives.sentences import PairTokens
    from norma.text.sequences import Sequences
    from norma.train.streams import Infilling, Masked, NextToken, Pairs

    seed = ctx.seed + 1000 * number
    _fits(part.objective, config)
    if part.objective == "given":
        return _given(ctx, part, tokenizer, config, length, seed, told=steps > 1)
    shards = _shards(ctx, part, tokenizer)
    if part.objective in TWO_STACKS:
        return _hidden(part, tokenizer, config, shards, length, seed)
    if part.objective == "generative":
        by = None if part.grades is None else ByGrade(**part.grades.model_dump())
        return NextToken(Sequences(shards, length=length, seed=seed), by)
    if part.objective == "infilling":
        sentinels = Sentinels(*tokenizer.objective_tokens("infilling"))
        return Infilling(Sequences(shards, length=length - ADDED, seed=seed), sentinels, seed, part.infilled)
    tokens = MaskTokens(tokenizer.objective_tokens("masked")[0], tokenizer.special_ids, len(tokenizer))
    masking = Masking(**part.mask.model_dump())
    marked = part.mask.unit != "token" or part.objective in ("next-sentence", "sentence-order")
    if marked and not shards.made.marks:
        raise NormaError("words and sentences are not marked in these shards", where=shards.folder, mend="tokens stage: marks: true")
    if part.objective in ("masked", "masked-next"):
        shifted = part.objective == "masked-next"
        return Masked(Sequences(shards, length=length, seed=seed), tokens, masking, steps, seed, shifted, name=part.objective)
    order: Literal["next", "order"] = "next" if part.objective == "next-sentence" else "order"
    pair = PairTokens(*tokenizer.objective_tokens("pairs"))
    return Pairs(shards, length, pair, tokens, masking, steps, seed, order, name=part.objective)


def _given(ctx: Context[Any], part: MixOptions, tokenizer: Tokenizer, config: ModelConfig, length: int, seed: int, *, told: bool) -> Stream:
    from norma.train.seq2seq import GivenPairs

    how: dict[str, Any] = {"start": _start(tokenizer, config), "seed": seed, "by_length": part.by_length}
    stream = GivenPairs.read(ctx.path(part.shards), tokenizer, length=length, **how)
    if told:
        ctx.progress.say(f"{len(stream)} pairs of texts; {stream.left_out} of more than {length} tokens, or empty, are left out")
    return stream


def _hidden(part: MixOptions, tokenizer: Tokenizer, config: ModelConfig, shards: Shards, length: int, seed: int) -> Stream:
    from norma.objectives.denoising import Noise
    from norma.objectives.spans import fitting
    from norma.text.sequences import Sequences
    from norma.train.seq2seq import Denoising, Spans

    start, rate = _start(tokenizer, config), part.spans.rate
    if part.objective == "denoising":
        noise = Noise(0.3 if rate is None else rate, part.spans.mean, part.spans.shuffled)
        mask = tokenizer.objective_tokens("masked")[0]
        return Denoising(Sequences(shards, length=length, seed=seed), noise, mask, start, seed)
    if tokenizer.eos_id is None:
        raise NormaError("the tokenizer has no end token", mend="Train one with a tokenizer stage")
    lengths = fitting(length, rate=0.15 if rate is None else rate, mean=part.spans.mean)
    sentinels = tokenizer.objective_tokens("spans")
    return Spans(Sequences(shards, length=lengths.raw, seed=seed), lengths, sentinels, start, tokenizer.eos_id, seed)


def _start(tokenizer: Tokenizer, config: ModelConfig) -> int:
    """The token that a decoder of this family begins with."""
    from norma.nn.families import FAMILIES

    ends = {"eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    found = ends[FAMILIES[config.family].start or "pad"]
    if found is None:
        raise NormaError(f"{config.family} begins with the end token, and the tokenizer has none", mend="Train one with a tokenizer stage")
    return found


def _shards(ctx: Context[Any], part: MixOptions, tokenizer: Tokenizer) -> Shards:
    from norma.text.shards import Shards
    from norma.text.tokenise import tokenizer_digest

    shards = Shards(ctx.path(part.shards))
    if shards.made.tokenizer != tokenizer_digest(tokenizer):
        mend = "Let both stages name the same tokenizer"
        raise NormaError("these shards were made with another tokenizer", where=shards.folder, mend=mend)
    return shards


def _fits(objective: Objective, config: ModelConfig) -> None:
    """Raise NormaError where a model cannot learn an objective."""
    causal = objective in ("generative", "infilling", "masked-next")
    if causal and config.kind == "encoder":
        raise NormaError(f"'{objective}' needs a decoder, {config.family} is an encoder", mend="Use masked, or pairs of sentences")
    if objective in TWO_STACKS:
        if config.kind != "encoder-decoder":
            raise NormaError(f"'{objective}' is for models of two stacks, {config.family} has one", mend="Take a preset such as t5 or bart")
        return
    if config.kind == "encoder-decoder":
        raise NormaError(f"'{objective}' is for models of one stack, {config.family} has two", mend="Choose a decoder or an encoder")
    if objective in ("next-sentence", "sentence-order") and config.head != "pretraining":
        raise NormaError(f"'{objective}' needs a head for pairs", mend="model: {preset: bert, head: pretraining}")
