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


class PolicyOptions(BaseModel):
    """How the policy is trained to maximise the reward."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    questions: int = Field(8, ge=1, description="Questions a step.")
    group: int = Field(8, ge=2, description="Answers to each question; advantages are taken within them.")
    max_new_tokens: int = Field(48, ge=1, description="Longest answer in tokens.")
    temperature: float = Field(1.0, gt=0, description="Of sampling, and of the log-probabilities that are trained.")
    kl: float = Field(0.05, ge=0, description="Strength of the leash to the model before (beta).")
    divide_by_std: bool = Field(True, description="Divide advantages by the group's standard deviation (GRPO) or not (Dr. GRPO).")
    unfinished: float = Field(-0.5, description="Added to the reward of an answer that was cut off at max_new_tokens.")
    micro_tokens: int = Field(4096, ge=256, description="Padded tokens of a micro-batch.")
