"""The dial of a pretrain stage: ``size: 3M`` or ``budget: 10min`` sets what the recipe leaves open.

options ─→ turn (norma.train.calibrate), once, frozen in plan.json ─→ a table ─→ options with shape, batch, steps, learning rate
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from norma.pipeline.stage import Context
from norma.pipeline.stages._length import LengthOptions
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    import torch

    from norma.text.tokenizer import Tokenizer
    from norma.train.dial import Dialled


def _scalar(value: Any) -> Any:
    """A number, true or false as written in a recipe, where only the preset knows what it takes."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
        return {"true": True, "false": False}.get(value, value)
    return value


Setting = Annotated[bool | int | float | str | None, BeforeValidator(_scalar)]


class ModelOptions(BaseModel):
    """The shape of a new model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str = Field("llama", description="Family: the layout the model is written in.")
    width: int = Field(256, ge=32, description="Features of a token.")
    layers: int = Field(6, ge=1, description="Blocks.")
    head_size: int = Field(64, ge=8, description="Features of one attention head.")
    max_positions: int = Field(512, ge=32, description="Longest sequence in tokens.")
    head: Literal["lm", "pretraining"] = Field("lm", description="lm: scores of tokens; pretraining: those and of pairs (bert).")
    dropout: float | None = Field(None, ge=0, lt=1, description="Share of activations that are dropped; by default the preset's.")
    settings: dict[str, Setting] = Field(default_factory=dict, description="Other arguments of the preset, such as kv_heads or experts.")


RATES = ("learning_rate", "matrix_learning_rate", "warmup")
SHAPE = ("width", "layers", "head_size")


class DialOptions(LengthOptions):
    """What the dial may set. What the recipe gives stays as it is."""

    size: str | None = Field(
        None, description="The dial: a number of weights, such as 3M, sets what is left open of model, batch, steps and learning rate."
    )
    budget: str | None = Field(None, description="The dial by time: 10min sets the largest size that this machine trains in that time.")
    model: ModelOptions = Field(default_factory=ModelOptions, description="The shape of the model.")
    sequence: int = Field(256, ge=16, description="Tokens of a packed sequence.")
    train: TrainOptions = Field(default_factory=TrainOptions, description="Optimiser and schedule.")

    @model_validator(mode="after")
    def _dial(self) -> DialOptions:
        if self.size is not None and self.budget is not None:
            raise ValueError("size and budget are two ways to turn one dial: give one of them")
        if self.size is not None or self.budget is not None:
            for name in SHAPE:
                if name in self.model.model_fields_set:
                    raise ValueError(f"{'size' if self.size else 'budget'} sets model.{name}: give one of them")
        return self

    def resolved(self) -> dict[str, Any]:
        """What stays open until the model is known is left open: written out, a default would be taken for given."""
        row = super().resolved()
        row["train"] = _without(row["train"], set(RATES) - self.train.model_fields_set)
        if self.size is None and self.budget is None:
            return row
        row["model"] = _without(row["model"], set(SHAPE) - self.model.model_fields_set)
        return _without(row, {"batch", "steps", "epochs", "flops"} - self.model_fields_set)

    def shards(self) -> list[str]:
        """References to the token shards that are read."""
        return []


def _without(row: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


D = TypeVar("D", bound=DialOptions)


def dialled(ctx: Context[D], tokenizer: Tokenizer, dtype: torch.dtype) -> D:
    """The options with what the dial sets; as they are where it is not turned."""
    options = ctx.options
    if options.size is None and options.budget is None:
        return options
    from norma.text.shards import Shards
    from norma.train.calibrate import turn
    from norma.train.dial import Dialled, maker

    shape = options.model
    make = maker(shape.preset, vocab_size=len(tokenizer), max_positions=shape.max_positions, settings=shape.settings)

    def measure() -> dict[str, Any]:
        tokens = sum(Shards(ctx.path(name)).tokens for name in options.shards()) or None
        how: dict[str, Any] = {"size": options.size, "budget": options.budget, "sequence": options.sequence}
        found, seconds = turn(make, corpus_tokens=tokens, dtype=dtype, **how)
        return {**found.row(), "seconds": seconds / ctx.ranks.count}

    chosen = dict(ctx.plan.choose("dial", measure))
    seconds = chosen.pop("seconds")
    found = Dialled(**chosen)
    for what, value, why in found.table(seconds):
        ctx.progress.say(f"{what:16} {value:>24}   {why}")
    return _filled(options, found)


def _filled(options: D, found: Dialled) -> D:
    """Each value of the dial that the recipe does not give."""
    shape = options.model.model_copy(update={"width": found.width, "layers": found.layers, "head_size": found.head_size})
    rates = {"learning_rate": found.learning_rate, "matrix_learning_rate": found.learning_rate, "warmup": found.warmup}
    train = options.train.model_copy(update={k: v for k, v in rates.items() if k not in options.train.model_fields_set})
    whole: dict[str, Any] = {"model": shape, "train": train}
    if "batch" not in options.model_fields_set:
        whole["batch"] = found.batch
    if not {"steps", "epochs", "flops"} & options.model_fields_set:
        whole["steps"] = found.steps
    return options.model_copy(update=whole)
