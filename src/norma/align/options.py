"""What a recipe may say about norm training. Loads no torch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PairOptions(BaseModel):
    """How pairs are trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pairs: int = Field(32, ge=1, description="Pairs a step.")
    beta: float = Field(0.1, gt=0, description="Strength of DPO's leash to the model before.")
    likelihood: float = Field(1.0, ge=0, description="Weight of the mean negative log-likelihood of the chosen answers.")
    micro_tokens: int = Field(4096, ge=256, description="Padded tokens of a micro-batch.")
