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

Objective = Literal["generative", "masked", "masked-next", "next-sentence", "sentence-order", "infilling"]


class MaskOptions(BaseModel):
    """What masked objectives hide."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float = Field(0.15, gt=0, le=1, description="Share of the tokens that is predicted.")
    final_rate: float | None = Field(None, gt=0, le=1, description="The share at the last step; the rate goes there in a straight line.")
    masked: float = Field(0.8, ge=0, le=1, description="Share of the predicted tokens that become the mask token.")
    replaced: float = Field(0.1, ge=0, le=1, description="Share of them that become another token; the rest stays.")
    unit: Literal["token", "word", "span"] = Field("token", description="token, word (Chinese words too), or span (runs of words).")


class MixOptions(BaseModel):
    """One objective over one corpus."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shards: InputRef = Field("tokens/train", description="Token shards: a folder of a tokens stage.")
    objective: Objective = Field(
        "generative",
        description="generative; masked (BERT); masked-next (masked, read off the place before: alternates with generative on one head);"
        " next-sentence or sentence-order (pairs, with masked); infilling.",
    )
    weight: float = Field(1.0, gt=0, description="How often its rows come, beside the other weights.")
    mask: MaskOptions = Field(default_factory=MaskOptions, description="What masked objectives hide.")
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


def _stream(
    ctx: Context[Any], part: MixOptions, number: int, tokenizer: Tokenizer, config: ModelConfig, length: int, steps: int
) -> Stream:
    from norma.objectives.infilling import ADDED, Sentinels
    from norma.objectives.masking import Masking, MaskTokens
    from norma.objectives.sentences import PairTokens
    from norma.text.sequences import Sequences
    from norma.train.streams import Infilling, Masked, NextToken, Pairs

    shards, seed = _shards(ctx, part, tokenizer), ctx.seed + 1000 * number
    _fits(part.objective, config)
    if part.objective == "generative":
        return NextToken(Sequences(shards, length=length, seed=seed))
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
    if config.kind == "encoder-decoder":
        raise NormaError(f"'{objective}' is for models of one stack, {config.family} has two", mend="Choose a decoder or an encoder")
    if objective in ("next-sentence", "sentence-order") and config.head != "pretraining":
        raise NormaError(f"'{objective}' needs a head for pairs", mend="model: {preset: bert, head: pretraining}")
