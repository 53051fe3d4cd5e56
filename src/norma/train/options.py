"""What a recipe may say about training. Loads no torch."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Schedule = Literal["constant", "cosine", "wsd"]
OnSpike = Literal["stop", "skip", "rollback"]
SinkName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class TrainOptions(BaseModel):
    """How weights are moved. The defaults suit models of a few million parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    optimiser: str = Field("muon", pattern="^(adamw|muon)$", description="adamw, or muon (matrices by Muon, the rest by AdamW).")
    learning_rate: float = Field(3e-3, gt=0, description="Peak learning rate of AdamW.")
    matrix_learning_rate: float = Field(1e-2, gt=0, description="Peak learning rate of Muon, in AdamW's units.")
    epsilon: float = Field(1e-8, gt=0, description="AdamW's epsilon; reference implementations of PPO take 1e-5.")
    weight_decay: float = Field(0.05, ge=0, description="Decoupled weight decay of matrices.")
    schedule: Schedule = Field("wsd", description="constant, cosine, or wsd (warm-up, stable, decay).")
    warmup: int = Field(20, ge=0, description="Steps of linear warm-up.")
    decay_share: float = Field(0.4, gt=0, le=1, description="Share of the steps over which wsd decays.")
    floor: float = Field(0.0, ge=0, lt=1, description="Share of the peak learning rate that cosine and wsd decay to.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    ema: float | None = Field(None, gt=0, lt=1, description="Decay of a running average of the weights; left out, none is kept.")
    averaged: bool = Field(False, description="At the end the model gets the averaged weights (needs ema).")

    z_loss: float = Field(0.0, ge=0, description="Weight of the squared log of the softmax's sum, 1e-4 in PaLM (token losses).")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Share of each target that is spread over the vocabulary (token losses).")
    tensor_parallel: int | None = Field(
        None, ge=2, description="Ranks that divide each layer between them (with torchrun, pretrain and sft); FSDP2 divides the rest."
    )
    compile: bool | None = Field(
        None, description="torch.compile of the blocks; left out, measured where training takes ten minutes or more, and done if it pays."
    )
    recompute: bool = Field(False, description="Activation checkpointing: keep only the inputs of blocks, at the price of a third pass.")

    # Off by default: losses of small batches, pairs and rollouts jump by themselves. What is not finite is always noticed.
    spike_factor: float | None = Field(None, gt=1, description="A loss above this many medians of the last 50 steps is a spike.")
    spike_mads: float | None = Field(
        None, gt=0, description="A loss this many median absolute deviations above the median of the last 50 steps is a spike."
    )
    on_spike: OnSpike = Field(
        "stop",
        description="At a spike, or a loss or gradient that is not finite: stop; skip (leave that step out); or rollback (go back to a"
        " checkpoint and leave out pass_over steps, the offending one last).",
    )
    pass_over: int = Field(10, ge=1, description="Steps that rollback leaves out; with 1 it ends as skip does.")
    most_skips: int = Field(5, ge=1, description="More spikes in a row than this stop the run.")

    checkpoint_seconds: float = Field(30.0, gt=0, description="Seconds between checkpoints.")
    keep_last: int = Field(2, ge=1, description="Newest checkpoints that are kept; with 2 there is another should one be damaged.")
    keep_every: int | None = Field(None, ge=1, description="Checkpoints of every this many steps are made and kept.")
    keep_best: str | None = Field(None, description="The checkpoint with the best value of this number of metrics.jsonl is kept.")
    best_is: Literal["lowest", "highest"] = Field("lowest", description="Which value of keep_best is the best.")

    sinks: list[SinkName] = Field(
        default_factory=list, description="Where metrics go besides metrics.jsonl: tensorboard, wandb, mlflow, trackio (pip extras)."
    )
    sample_every: int | None = Field(None, ge=1, description="Steps between samples in samples.jsonl, in stages that can make one.")

    @model_validator(mode="after")
    def _averages(self) -> Self:
        if self.averaged and self.ema is None:
            raise ValueError("averaged needs ema, the decay of the average")
        return self
