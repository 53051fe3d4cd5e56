"""What a recipe may say about norm training. Loads no torch."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Method = Literal["dpo", "cdpo", "ipo", "orpo", "simpo", "kto", "unlikelihood", "weighted", "sft"]


class MethodFacts(NamedTuple):
    """What is known of a method before any tensor."""

    paired: bool  # compares two answers to one question; the others take each answer by itself
    reference: bool  # needs log-probabilities under the model before
    beta: float  # by default
    likelihood: float  # weight of the likelihood of the better answers, by default


METHODS: dict[Method, MethodFacts] = {
    "dpo": MethodFacts(True, True, 0.1, 0.0),
    "cdpo": MethodFacts(True, True, 0.1, 0.0),
    "ipo": MethodFacts(True, True, 0.1, 0.0),
    "orpo": MethodFacts(True, False, 0.1, 1.0),
    "simpo": MethodFacts(True, False, 2.0, 0.0),
    "kto": MethodFacts(False, True, 0.1, 0.0),
    "unlikelihood": MethodFacts(False, False, 1.0, 1.0),
    "weighted": MethodFacts(False, False, 0.5, 0.0),
    "sft": MethodFacts(False, False, 1.0, 1.0),
}


class PairOptions(BaseModel):
    """How pairs and marks are trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pairs: int = Field(32, ge=1, description="Pairs, or marked answers, a step.")
    beta: float | None = Field(
        None,
        gt=0,
        description="Strength: of the leash to the model before (dpo, cdpo, ipo, kto; 0.1), of the odds ratio (orpo, 0.1), of the mean"
        " log-probability (simpo, 2), of unlikelihood (1); temperature of the scores (weighted, 0.5). null: the number in brackets.",
    )
    likelihood: float | None = Field(
        None,
        ge=0,
        description="Weight of the mean negative log-likelihood of the better answers; null: 1 for orpo, unlikelihood and sft, and for"
        " pairs in a correction stage, else 0.",
    )
    smoothing: float = Field(0.1, ge=0, lt=0.5, description="cdpo: share of the pairs that are believed to be the wrong way round.")
    margin: float = Field(1.0, ge=0, description="simpo: by how much the better answer is to win (gamma).")
    desirable: float | None = Field(None, gt=0, description="kto: weight of desirable answers; null: both kinds then weigh as much in all.")
    undesirable: float = Field(1.0, gt=0, description="kto: weight of undesirable answers.")
    micro_tokens: int = Field(4096, ge=256, description="Padded tokens of a micro-batch.")


class OnlineOptions(BaseModel):
    """How the policy makes its own pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    questions: int = Field(16, ge=1, description="Questions a step.")
    answers: int = Field(2, ge=2, description="Answers to each; the best is set over the worst.")
    max_new_tokens: int = Field(48, ge=1, description="Longest answer in tokens.")
    temperature: float = Field(1.0, gt=0, description="Of sampling.")
    unfinished: float = Field(-0.5, description="Added to the reward of an answer that was cut off at max_new_tokens.")
