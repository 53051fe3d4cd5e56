"""What a recipe may say about policy-gradient training. Loads no torch.

A method is nothing but a row of settings: how the advantage is estimated, which ratio is clipped, how tokens are averaged, where the
leash sits. A recipe names the method and may change any of them.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Method = Literal["reinforce", "rloo", "ppo", "grpo", "dr-grpo", "dapo", "gspo"]

# What differs from the fields' own defaults, which are GRPO's.
METHODS: dict[str, dict[str, Any]] = {
    "reinforce": {"advantage": "baseline", "average": "sum", "kl_in": "reward", "clip_high": 0.2},
    "rloo": {"advantage": "leave-one-out", "average": "sum", "kl_in": "reward", "clip_high": 0.2},  # 2402.14740
    "ppo": {"advantage": "value", "kl_in": "reward", "epochs": 4, "clip_high": 0.2, "whiten": True},  # 1707.06347, 2203.02155
    "grpo": {},  # 2402.03300, tokens averaged as in DAPO
    "dr-grpo": {"divide_by_std": False, "average": "constant", "kl": 0.0, "clip_high": 0.2},  # 2503.20783
    "dapo": {"kl": 0.0, "refills": 3},  # 2503.14476; the overlong penalty needs a length: `overlong`
    "gspo": {"ratio": "sequence", "average": "answer", "clip_low": 3e-4, "clip_high": 4e-4},  # 2507.18071, section 5.1
}


class ValueOptions(BaseModel):
    """PPO's value head: what it stands on and how it learns."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    backbone: Literal["copy", "shared"] = Field(
        "copy", description="A copy of the policy that learns by itself, or the policy's own states."
    )
    coefficient: float = Field(0.1, gt=0, description="Weight of the value loss beside the policy's.")
    clip: float = Field(0.2, gt=0, description="How far a value may move within a rollout before it is pulled no further.")
    discount: float = Field(1.0, gt=0, le=1, description="Discount of a token later (gamma).")
    decay: float = Field(0.95, ge=0, le=1, description="GAE's lambda: 1 trusts rewards alone, 0 the next value.")


class PolicyOptions(BaseModel):
    """How the policy is trained to maximise the reward. ``method`` sets what other fields do not say."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    method: Method = Field("grpo", description="reinforce, rloo, ppo, grpo, dr-grpo, dapo or gspo: defaults of what follows.")
    questions: int = Field(8, ge=1, description="Questions of a rollout.")
    group: int = Field(8, ge=1, description="Answers to each question; grpo's and rloo's advantages are taken within them.")
    epochs: int = Field(1, ge=1, description="Passes over a rollout (4 in ppo).")
    minibatches: int = Field(1, ge=1, description="Steps of one pass: the rollout's questions are divided among them.")
    max_new_tokens: int = Field(48, ge=1, description="Longest answer in tokens.")
    temperature: float = Field(1.0, gt=0, description="Of sampling, and of the log-probabilities that are trained.")
    top_p: float = Field(1.0, gt=0, le=1, description="Must stay 1: what is trained is what is sampled.")
    top_k: int = Field(0, ge=0, description="Must stay 0, for the same reason.")

    advantage: Literal["baseline", "leave-one-out", "value", "group"] = Field(
        "group", description="Reward minus: a running mean, the mean of the others in the group, a value head (GAE), the group's mean."
    )
    divide_by_std: bool = Field(True, description="Divide group advantages by the group's standard deviation (GRPO) or not (Dr. GRPO).")
    whiten: bool = Field(False, description="Make the advantages of a rollout's tokens mean 0 and deviation 1 (true in ppo).")
    ratio: Literal["token", "sequence"] = Field("token", description="What is clipped: each token's ratio, or the whole answer's (gspo).")
    average: Literal["token", "answer", "constant", "sum"] = Field(
        "token",
        description="Mean over all tokens; within each answer first; sums by max_new_tokens (dr-grpo); or sums (reinforce, rloo).",
    )
    clip_low: float = Field(0.2, gt=0, lt=1, description="How far a ratio may fall below 1 (3e-4 in gspo).")
    clip_high: float = Field(0.28, gt=0, description="How far it may rise above 1 (0.28 in grpo and dapo, 4e-4 in gspo, else 0.2).")
    baseline_decay: float = Field(0.9, ge=0, lt=1, description="Of reinforce's running mean of the reward.")
    value: ValueOptions = Field(default_factory=ValueOptions, description="The value head, with advantage: value.")

    kl: float = Field(0.05, ge=0, description="Strength of the leash to the model before (beta); 0 in dr-grpo and dapo.")
    kl_in: Literal["loss", "reward"] = Field(
        "loss", description="The leash as a term of the loss, or in the reward (reinforce, rloo, ppo)."
    )
    kl_target: float | None = Field(None, gt=0, description="KL a token in nats that an adaptive leash steers to; left out, kl is fixed.")
    unfinished: float = Field(-0.5, description="Added to the reward of an answer that was cut off at max_new_tokens.")
    overlong: int = Field(0, ge=0, description="The last tokens before max_new_tokens, over which a penalty falls to -1 (DAPO); 0: none.")
    refills: int = Field(
        0, ge=0, description="Times that groups without signal are replaced by new questions (dynamic sampling; 3 in dapo)."
    )
    multiplier_rate: float = Field(0.1, gt=0, description="Step of the Lagrange multipliers of the spec's constraints, a rollout.")
    multiplier_most: float = Field(10.0, gt=0, description="Largest multiplier.")
    held_out_every: int = Field(5, ge=1, description="Rollouts between looks of the spec's held-out checkers; they never enter the reward.")
    micro_tokens: int = Field(4096, ge=256, description="Padded tokens of a micro-batch.")

    @model_validator(mode="before")
    @classmethod
    def _of_the_method(cls, values: Any) -> Any:
        return METHODS.get(str(values.get("method", "grpo")), {}) | values if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.top_p != 1.0 or self.top_k:
            raise ValueError(
                "training samples from the whole distribution: top_p and top_k would make the gradient that of another one"
                " (leave them out; temperature may be set)"
            )
        if self.advantage in ("group", "leave-one-out") and self.group < 2:
            raise ValueError(f"{self.method} compares the answers of a group: group must be 2 or more")
        if self.refills and self.advantage not in ("group", "leave-one-out"):
            raise ValueError("refills replaces groups without signal, which only group and leave-one-out advantages have")
        if self.minibatches > self.questions:
            raise ValueError(f"{self.questions} questions cannot be divided into {self.minibatches} minibatches")
        if self.overlong > self.max_new_tokens:
            raise ValueError(f"overlong ({self.overlong}) is more than max_new_tokens ({self.max_new_tokens})")
        return self

    @property
    def steps(self) -> int:
        """Optimiser steps of one rollout."""
        return self.epochs * self.minibatches
