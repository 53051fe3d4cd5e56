"""Frontier stage: models side by side on the plane of reward and KL, judged by what training never saw.

reference, models ─→ sampled answers ─→ models/NN.json ─→ KL to the reference, mean score of the judge ─→ frontier.json, frontier.svg, table
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from norma.base.files import read_json, write_json, write_text
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._learning import open_model, prepare

if TYPE_CHECKING:
    from norma.evaluate.frontier import Answer, Point, Scorer
    from norma.spec import Item, Spec


class OnPlane(BaseModel):
    """One point: a trained model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: InputRef = Field(description="The stage that trained it.")
    method: str = Field(description="Points of one method are joined by a line.")
    strength: str = Field("", description="What tells the points of a method apart, such as its leash.")


class FrontierOptions(StageOptions):
    """Options of a ``frontier`` stage."""

    reference: InputRef = Field(description="The model before: the KL leads to it, and best-of-n draws from it.")
    models: list[OnPlane] = Field(default_factory=list, description="What is compared.")
    judge: InputRef | None = Field(
        None, description="A stage with a reward model that no training saw; null: share of rules that the spec's held-out checkers pass."
    )
    reward: InputRef | None = Field(
        None, description="A stage with the reward model that training saw: shown beside, and best-of-n chooses by it; null: by the spec."
    )
    questions: InputRef = Field("corpus/qa.validation.jsonl", description="Prompts that no training saw; references are not looked at.")
    count: int = Field(200, ge=2, description="How many of them.")
    answers: int = Field(2, ge=1, description="Answers of each model to each.")
    best_of: list[int] = Field(default_factory=list, description="Best-of-n points, such as [2, 4, 8].")
    best_of_answers: int = Field(16, ge=2, description="Answers of the reference to each prompt that they are drawn from.")
    max_new_tokens: int = Field(48, ge=1, description="Longest answer in tokens.")

    @model_validator(mode="after")
    def _drawn(self) -> FrontierOptions:
        if any(not 2 <= n <= self.best_of_answers for n in self.best_of):
            raise ValueError(f"best_of draws 2 to best_of_answers ({self.best_of_answers}) answers")
        if not self.models and not self.best_of:
            raise ValueError("give models or best_of: there is nothing to place")
        return self


class Frontier(Stage[FrontierOptions]):
    """Every model answers once; its answers and log-probabilities are kept, so that a killed run goes on with the next."""

    kind, version, Options = "frontier", 1, FrontierOptions
    uses_spec = True

    def spec_use(self, options: FrontierOptions) -> bool | tuple[str, ...]:
        return options.judge is None or (options.reward is None and bool(options.best_of))

    def run(self, ctx: Context[FrontierOptions]) -> dict[str, Any]:
        from norma.align.rows import choose, read_items
        from norma.evaluate.frontier import best_of_point, efficient, point
        from norma.evaluate.report.plane import plane_svg, plane_table

        options = ctx.options
        prepare(ctx)
        items = choose(read_items(ctx.path(options.questions)), options.count, ctx.seed)
        lines = [OnPlane(model=options.reference, method="reference"), *options.models]
        judge, reward = _scorer(ctx, options.judge, "heldout"), _reward(ctx)
        points: list[Point] = []
        for number, line in enumerate(lines):
            answers, scores, trained = _answered(ctx, number, line.model, items, options.answers, judge, reward)
            points.append(point(line.method, line.strength, answers, scores, trained))
            ctx.progress.update(number + 1, len(lines) + bool(options.best_of))
        if options.best_of:
            assert reward is not None
            answers, scores, trained = _answered(ctx, len(lines), options.reference, items, options.best_of_answers, judge, reward)
            assert trained is not None
            points += [best_of_point(answers, trained, scores, n) for n in options.best_of]
        table = plane_table(points, efficient(points))
        write_json(ctx.folder / "frontier.json", {"points": [p.row() for p in points], "efficient": efficient(points)})
        said = "held-out reward" if options.judge else "share of rules kept, held-out checkers"
        write_text(ctx.folder / "frontier.svg", plane_svg(points, title="Reward and distance from the model before", judge=said))
        return {"table": table, "publish": ["frontier.svg", "frontier.json"]}


def _answered(
    ctx: Context[FrontierOptions], number: int, model: str, items: list[Item], each: int, judge: Scorer, reward: Scorer | None
) -> tuple[list[Answer], list[float | None], list[float | None] | None]:
    """A model's answers with the judge's scores and those of the training reward; kept in a file of their own."""
    from dataclasses import asdict

    from norma.evaluate.frontier import Answer, sample_answers

    path = ctx.folder / "models" / f"{number:02}.json"
    if not path.exists():
        policy, reference = open_model(ctx, model), open_model(ctx, ctx.options.reference)
        how: dict[str, Any] = {"max_new_tokens": ctx.options.max_new_tokens, "seed": (ctx.seed << 10) + number, "dtype": prepare(ctx)}
        made = sample_answers(policy, reference, items, each=each, **how)
        asked = [item for item in items for _ in range(each)]
        texts = [a.text for a in made]
        kept = {"answers": [asdict(a) for a in made], "judge": judge(asked, texts), "reward": reward(asked, texts) if reward else None}
        write_json(path, kept)
    row = read_json(path)
    return [Answer(**a) for a in row["answers"]], row["judge"], row["reward"]


def _reward(ctx: Context[FrontierOptions]) -> Scorer | None:
    """What training saw: a reward model, or the spec where best-of-n needs something to choose by."""
    if ctx.options.reward is not None or ctx.options.best_of:
        return _scorer(ctx, ctx.options.reward, "train")
    return None


def _scorer(ctx: Context[FrontierOptions], stage: str | None, role: Any) -> Scorer:
    """A reward model's score, or the share of a spec's rules that its checkers of a role pass."""
    if stage is None:
        return lambda items, texts: [_share(ctx.need_spec(), item, text, role) for item, text in zip(items, texts, strict=True)]
    from norma.align.reward_model import RewardModel

    model = RewardModel.load(ctx.path(stage))
    return lambda items, texts: [float(v) for v in model.scores([i.messages for i in items], texts)[:, 0]]


def _share(spec: Spec, item: Item, text: str, role: Any) -> float | None:
    from norma.spec import Status

    marks = [v.status for v in spec.verdicts(item, text, role) if v.status in (Status.COMPLIANT, Status.VIOLATION)]
    return sum(m is Status.COMPLIANT for m in marks) / len(marks) if marks else None
