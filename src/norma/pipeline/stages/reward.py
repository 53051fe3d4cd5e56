"""Reward stage: reward modelling (奖惩建模). Maximise E[R(x, y)], R composed from the spec's rules, on a leash to the model before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from norma.align.policy_options import PolicyOptions
from norma.base.errors import NormaError
from norma.base.files import read_jsonl
from norma.base.ranks import Ranks
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._learning import (
    AdaptOptions,
    AnswerOptions,
    Source,
    adapted,
    answering,
    load_rows,
    open_model,
    prepare,
    save_model,
    show_answers,
)
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from norma.align.rewarding import Judged, NormReward
    from norma.lm import LanguageModel
    from norma.nn import Transformer
    from norma.spec import Item

CENTRED_ON = 64  # questions whose answers say what the reward model gives on average
LOOKED_AT = 1000  # questions among which the longest is looked for, for the batch table


class PretrainingMix(BaseModel):
    """PPO-ptx: other rows whose likelihood is kept up while the reward is followed (InstructGPT)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    data: list[Source] = Field(min_length=1, description="Rows of text or conversations.")
    coefficient: float = Field(1.0, gt=0, description="Weight of their mean loss in nats a token beside the policy's.")
    batch: int = Field(8, ge=1, description="Sequences a step.")
    micro_batch: int = Field(8, ge=1, description="Sequences in memory at one time; does not change the gradient.")
    sequence: int = Field(256, ge=16, description="Tokens of a packed sequence.")


class RewardOptions(AnswerOptions, AdaptOptions, StageOptions):
    """Options of a ``reward`` stage."""

    from_: InputRef = Field(alias="from", description="The stage whose model is trained, and to which the leash leads.")
    questions: InputRef = Field("corpus/qa.train.jsonl", description="Questions to answer; references are not looked at.")
    steps: int = Field(40, ge=1, description="Updates of the weights; a rollout lasts for policy.epochs x policy.minibatches of them.")
    rules: bool = Field(True, description="The spec's rules make the reward; false: the reward model alone.")
    reward_model: InputRef | None = Field(None, description="A stage with a reward model, added to the reward; left out, there is none.")
    reward_weight: float = Field(
        1.0, gt=0, description="Weight of the reward model's score, less its mean over answers of the model before."
    )
    policy: PolicyOptions = Field(default_factory=PolicyOptions, description="Method, rollouts and leash.")
    pretraining: PretrainingMix | None = Field(None, description="Rows whose loss is mixed in (PPO-ptx).")
    train: TrainOptions = Field(
        default_factory=lambda: TrainOptions(optimiser="adamw", learning_rate=3e-4, weight_decay=0.0, schedule="wsd", warmup=3),
        description="Optimiser and schedule.",
    )

    @model_validator(mode="after")
    def _rewarded(self) -> RewardOptions:
        if not self.rules and self.reward_model is None:
            raise ValueError("rules: false needs a reward_model, else nothing is rewarded")
        return self


class Reward(Stage[RewardOptions]):
    """Policy-gradient training: REINFORCE, RLOO, PPO, GRPO and its kin."""

    kind, version, parallel, Options = "reward", 3, True, RewardOptions
    uses_spec = True

    def spec_use(self, options: RewardOptions) -> bool | tuple[str, ...]:
        return options.rules

    def run(self, ctx: Context[RewardOptions]) -> dict[str, Any]:
        from norma.align.policy import NormPolicy
        from norma.align.rows import read_items
        from norma.align.telling import batch_table, in_words
        from norma.text.chat import prompt_ids
        from norma.train import train
        from norma.train.spread import recompute

        options, state = ctx.options, dict[str, Any]()
        ranks = ctx.ranks.grouped(options.train.tensor_parallel)
        dtype = prepare(ctx)
        model = answering(ctx, adapted(ctx, open_model(ctx, options.from_)))
        reference = model.copy() if options.lora is None else None
        items = _answerable(ctx, model, read_items(ctx.path(options.questions)))
        reward = _reward(ctx, model, items)
        more = None if options.pretraining is None else _pretraining(ctx, model, options.pretraining, dtype, ranks)
        policy = NormPolicy(
            model, reference, reward, items, options.policy, seed=ctx.seed, dtype=dtype, state=state, ranks=ranks, pretraining=more
        )
        if options.train.recompute:
            recompute(policy.learner.policy)
        policy.on_rollout = partial(_show_best_and_worst, ctx, model)
        longest = max(len(prompt_ids(model.tokenizer, i.messages)) for i in items[:LOOKED_AT])
        sizes = {"steps": options.steps, "questions": len(items), "prompt_tokens": longest, "ranks": ranks.readers}
        ctx.progress.say(batch_table(options.policy, **sizes))
        last = train(
            policy.learner,
            policy.losses,
            steps=options.steps,
            options=options.train,
            folder=ctx.folder,
            progress=ctx.progress,
            state=state,
            seed=ctx.seed,
            name=ctx.name,
            ranks=ranks,
        )
        policy.finish()
        if not ranks.first:
            return {}
        for line in in_words(read_jsonl(ctx.folder / "metrics.jsonl")):
            ctx.progress.say(line)
        save_model(ctx, model)
        return {"model": True, "steps": options.steps, "reward": last.get("reward"), "kl": last.get("kl")}


def _show_best_and_worst(ctx: Context[RewardOptions], model: LanguageModel, number: int, judged: Sequence[Judged]) -> None:
    """Of the first rollout, the question whose answers differ most in reward, coloured: what becomes likelier and what less likely."""
    from norma.text.chat import prompt_ids

    if number > 0:
        return
    best: tuple[float, Judged, int, int] | None = None
    for group in judged:
        known = [(reward, n) for n, reward in enumerate(group.rewards) if reward is not None]
        if known and (best is None or max(known)[0] - min(known)[0] > best[0]):
            best = (max(known)[0] - min(known)[0], group, max(known)[1], min(known)[1])
    if best is not None and best[0] > 0:
        _, group, good, bad = best
        show_answers(
            ctx, model.tokenizer, prompt_ids(model.tokenizer, group.item.messages), group.written[good].ids, group.written[bad].ids
        )


def _answerable(ctx: Context[RewardOptions], model: LanguageModel, items: list[Item]) -> list[Item]:
    """The questions that the model can read with room for an answer."""
    from norma.align.answers import readable

    kept = [item for item in items if readable(model, item.messages, ctx.options.policy.max_new_tokens)]
    if not kept:
        mend = "Lower policy.max_new_tokens, or ask shorter questions"
        raise NormaError(f"none of the {len(items)} questions leaves room for an answer", where=ctx.path(ctx.options.questions), mend=mend)
    if len(kept) < len(items):
        ctx.progress.say(f"{len(items) - len(kept)} of {len(items)} questions are too long for the model and are left out")
    return kept


def _reward(ctx: Context[RewardOptions], model: LanguageModel, items: list[Item]) -> NormReward:
    """What answers are worth: by the spec, by a reward model that is centred on the model's own answers, or by both."""
    from norma.align.marks import sample
    from norma.align.reward_model import RewardModel
    from norma.align.rewarding import NormReward
    from norma.align.rows import choose
    from norma.generate import Sampling

    options, spec = ctx.options, ctx.need_spec() if ctx.options.rules else None
    if options.reward_model is None:
        return NormReward(spec, options.policy)
    scorer = RewardModel.load(ctx.path(options.reward_model))

    def mean() -> float:
        asked = choose(items, CENTRED_ON, ctx.seed)
        sampling = Sampling(options.policy.max_new_tokens, options.policy.temperature, seed=ctx.seed)
        answers = sample(model, asked, [i.messages for i in asked], sampling)
        return float(scorer.scores([i.messages for i in asked], [a[0].text for a in answers]).mean())

    shift = ctx.plan.choose("reward_shift", mean)
    ctx.progress.say(f"the reward model gives {shift:.3f} to the model's own answers on average; that counts as 0")
    return NormReward(spec, options.policy, scorer=scorer, weight=options.reward_weight, shift=shift)


def _pretraining(ctx: Context[RewardOptions], model: LanguageModel, mix: PretrainingMix, dtype: torch.dtype, ranks: Ranks) -> Any:
    """(network, step) -> the weighted loss of that step's rows, a micro-batch at a time."""
    from norma.text.packing import Batches
    from norma.train.step import language_losses

    rows = load_rows(ctx, model.tokenizer, mix.data, mix.sequence)
    batches = Batches(rows, length=mix.sequence, size=mix.batch, seed=ctx.seed, pad=model.tokenizer.pad_id)
    parts = partial(language_losses, micro=mix.micro_batch, dtype=dtype, ranks=ranks)

    def losses(network: Transformer, step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        for loss, numbers in parts(network, batches, step):
            yield mix.coefficient * loss, {"loss": mix.coefficient * numbers["loss"], "pretraining_loss": numbers["loss"]}

    return losses
