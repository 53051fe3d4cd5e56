"""What a recipe may say about training. Loads no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Schedule = Literal["constant", "cosine", "wsd"]


class TrainOptions(BaseModel):
    """How weights are moved. The defaults suit models of a few million parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    optimiser: str = Field("muon", pattern="^(adamw|muon)$", description="adamw, or muon (matrices by Muon, the rest by AdamW).")
    learning_rate: float = Field(3e-3, gt=0, description="Peak learning rate of AdamW.")
    matrix_learning_rate: float = Field(1e-2, gt=0, description="Peak learning rate of Muon, in AdamW's units.")
    weight_decay: float = Field(0.05, ge=0, description="Decoupled weight decay of matrices.")
    schedule: Schedule = Field("wsd", description="constant, cosine, or wsd (warm-up, stable, decay).")
    warmup: int = Field(20, ge=0, description="Steps of linear warm-up.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    checkpoint_seconds: float = Field(30.0, gt=0, description="Seconds between checkpoints.")
