"""Sampled stage: a model's own answers, put in order by a reward, as pairs and marks for offline preference training.

questions ─→ n answers each ─→ reward ─→ pairs.train.jsonl (best over worst), marks.train.jsonl (above or below the mean of all)

What DPO and KTO learn from here is what PPO and GRPO are rewarded for: the same reward, seen once, off the policy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from norma.base.errors import NormaError
from norma.base.files import write_jsonl
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._learning import AnswerOptions, answering, open_model, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from norma.generate import Completion
    from norma.spec import Item


class SampledOptions(AnswerOptions, StageOptions):
    """Options of a ``sampled`` stage."""

    from_: InputRef = Field(alias="from", description="The stage whose model answers.")
    questions: InputRef = Field("corpus/qa.train.jsonl", description="What it is asked; references are not looked at.")
    reward_model: InputRef | None = Field(None, description="The stage whose reward model puts answers in order; null: the spec's R(x, y).")
    count: int = Field(500, ge=1, description="How many questions.")
    answers: int = Field(4, ge=2, description="Answers to each.")
    max_new_tokens: int = Field(48, ge=1, description="Longest answer in tokens.")
    temperature: float = Field(1.0, gt=0, description="Of sampling.")


class Sampled(Stage[SampledOptions]):
    """Answers, scores, pairs and marks."""

    kind, version, Options = "sampled", 1, SampledOptions
    uses_spec = True

    def spec_use(self, options: SampledOptions) -> bool | tuple[str, ...]:
        return options.reward_model is None

    def run(self, ctx: Context[SampledOptions]) -> dict[str, Any]:
        from norma.align.marks import sample
        from norma.align.rows import choose, read_items
        from norma.generate import Sampling

        options = ctx.options
        prepare(ctx)
        items = choose(read_items(ctx.path(options.questions)), options.count, ctx.seed)
        model = answering(ctx, open_model(ctx, options.from_))
        sampling = Sampling(options.max_new_tokens, options.temperature, seed=ctx.seed)
        made = sample(model, items, [i.messages for i in items], sampling, each=options.answers)
        # One that was cut off would be trained to end where it does not.
        done = [(item, texts) for item, group in zip(items, made, strict=True) if (texts := [c.text for c in group if _ended(c)])]
        items, groups = [item for item, _ in done], [texts for _, texts in done]
        scores = _scores(ctx, items, groups) if groups else []
        pairs, marks = ordered(items, groups, scores)
        if not pairs:
            why = "no answer ended within max_new_tokens" if not groups else "no question has two answers of different reward"
            raise NormaError(why, mend="Raise 'max_new_tokens' or 'answers', or look at the reward")
        write_jsonl(ctx.folder / "pairs.train.jsonl", pairs)
        write_jsonl(ctx.folder / "marks.train.jsonl", marks)
        known = [s for group in scores for s in group if s is not None]
        mean = sum(known) / len(known)
        asked = options.answers * len(made)
        ctx.progress.say(f"{len(known)} of {asked} answers ended, mean reward {mean:.3f}: {len(pairs)} pairs, {len(marks)} marks")
        return {"pairs": len(pairs), "marks": len(marks), "reward": mean}


def ordered(
    items: Sequence[Item], groups: Sequence[Sequence[str]], scores: Sequence[Sequence[float | None]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pairs of the best answer over the worst, and marks: desirable above the mean of all answers. Answers without a score are left out."""
    known = [s for group in scores for s in group if s is not None]
    mean = sum(known) / max(1, len(known))
    pairs, marks = [], []
    for item, texts, values in zip(items, groups, scores, strict=True):
        about = {"source": item.cluster, "language": item.language, "messages": [dict(m) for m in item.messages]}
        judged = sorted(((s, t) for t, s in zip(texts, values, strict=True) if s is not None), key=lambda pair: pair[0])
        marks += [
            {"id": f"{item.id}/{n}", **about, "answer": text, "desirable": score > mean, "score": score, "marked_by": "reward"}
            for n, (score, text) in enumerate(judged)
        ]
        if len(judged) > 1 and judged[-1][0] > judged[0][0]:
            margin = judged[-1][0] - judged[0][0]
            pairs.append({"id": item.id, **about, "chosen": judged[-1][1], "rejected": judged[0][1], "margin": margin})
    return pairs, marks


def _ended(completion: Completion) -> bool:
    return completion.finish_reason == "stop" and bool(completion.text.strip())


def _scores(ctx: Context[SampledOptions], items: Sequence[Item], groups: Sequence[Sequence[str]]) -> list[list[float | None]]:
    if ctx.options.reward_model is None:
        spec, found = ctx.need_spec(), []
        for item, texts in zip(items, groups, strict=True):
            verdicts = [spec.verdicts(item, text, "train") for text in texts]
            found.append([reward.value for reward in spec.rewards([item] * len(texts), verdicts)])
        return found
    from norma.align.reward_model import RewardModel

    model = RewardModel.load(ctx.path(ctx.options.reward_model))
    prompts = [item.messages for item, texts in zip(items, groups, strict=True) for _ in texts]
    scores = iter(float(v) for v in model.scores(prompts, [text for texts in groups for text in texts])[:, 0])
    return [[next(scores) for _ in texts] for texts in groups]
