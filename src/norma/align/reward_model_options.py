"""What a recipe may say about learning a reward model. Loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Heads = Literal["pair", "score", "rules"]


class RewardModelOptions(BaseModel):
    """How judgements are learnt."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rows: int = Field(32, ge=1, description="Pairs or answers a step.")
    margin: bool = Field(True, description="Pairs: the better answer is to be worth more by the row's margin, where it has one.")
    centring: float = Field(0.01, ge=0, description="Pairs: weight of the squared sum of the two rewards, which holds them near zero.")
    pointwise: Literal["squared", "logistic"] = Field(
        "squared", description="Scores: squared error around their mean, or logistic loss (scores in [0, 1]; without one, the mark)."
    )
    micro_tokens: int = Field(4096, ge=256, description="Padded tokens of a micro-batch.")
