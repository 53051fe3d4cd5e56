"""Reward stage: reward modelling (奖惩建模). Maximise E[R(x, y)], R composed from the spec's rules, on a leash to the model before."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from norma.align.options import PolicyOptions
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._learning import AdaptOptions, adapted, open_model, prepare, save_model
from norma.train.options import TrainOptions


class RewardOptions(AdaptOptions, StageOptions):
    """Options of a ``reward`` stage."""

    from_: InputRef = Field(alias="from", description="The stage whose model is trained, and to which the leash leads.")
    questions: InputRef = Field("corpus/qa.train.jsonl", description="Questions to answer; references are not looked at.")
    steps: int = Field(40, ge=1, description="Steps: one rollout and one update each.")
    policy: PolicyOptions = Field(default_factory=PolicyOptions, description="Rollouts and leash.")
    train: TrainOptions = Field(
        default_factory=lambda: TrainOptions(optimiser="adamw", learning_rate=3e-4, weight_decay=0.0, schedule="wsd", warmup=3),
        description="Optimiser and schedule.",
    )


class Reward(Stage[RewardOptions]):
    """Policy-gradient training (GRPO)."""

    kind, version, Options = "reward", 1, RewardOptions
    uses_spec = True

    def run(self, ctx: Context[RewardOptions]) -> dict[str, Any]:
        from norma.align.reward import NormPolicy
        from norma.align.rows import read_items
        from norma.train import train

        options = ctx.options
        dtype = prepare(ctx)
        model = adapted(ctx, open_model(ctx, options.from_))
        reference = model.copy() if options.lora is None else None
        items = read_items(ctx.path(options.questions))
        policy = NormPolicy(model, reference, ctx.need_spec(), items, options.policy, seed=ctx.seed, dtype=dtype)
        size = options.policy.questions * options.policy.group
        ctx.progress.say(
            f"{options.steps} steps of {options.policy.questions} questions x {options.policy.group} answers = {size} answers a step"
        )
        last = train(model.transformer, policy.losses, steps=options.steps, options=options.train, folder=ctx.folder, progress=ctx.progress)
        if last.get("flat_groups", 0) > 0.3:
            ctx.progress.say(f"{last['flat_groups']:.0%} of the last step's groups gave no signal because all answers got the same reward")
        save_model(ctx, model)
        return {"model": True, "steps": options.steps, "reward": last.get("reward"), "kl": last.get("kl")}
