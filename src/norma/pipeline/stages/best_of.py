"""Best-of stage: n answers to each question, the best are trained, and again: rejection-sampling fine-tuning and expert iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from norma.base.files import read_jsonl, write_json
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._fitting import fit
from norma.pipeline.stages._learning import AdaptOptions, AnswerOptions, adapted, answering, open_model, prepare, save_model
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    from norma.align.best_of import Scorer


class BestOfOptions(AnswerOptions, AdaptOptions, StageOptions):
    """Options of a ``best-of`` stage."""

    from_: InputRef = Field(alias="from", description="The stage whose model is sampled and trained.")
    questions: InputRef = Field("corpus/qa.train.jsonl", description="Questions to answer; references are not looked at.")
    reward_model: InputRef | None = Field(None, description="The stage whose reward model judges; by default the spec's R(x, y) does.")
    count: int = Field(400, ge=1, description="Questions of a round.")
    answers: int = Field(8, ge=1, description="Answers to each (n); the best is trained.")
    rounds: int = Field(1, ge=1, description="How often answers are sampled, each time by the newest model; above 1: expert iteration.")
    least: float | None = Field(None, description="A best answer of less than this score is not trained; by default every best one is.")
    temperature: float = Field(1.0, gt=0, description="Of sampling.")
    max_new_tokens: int = Field(48, ge=1, description="Longest answer in tokens; one that is cut off is not trained.")
    epochs: float = Field(1.0, gt=0, description="Passes over a round's questions.")
    batch: int = Field(16, ge=1, description="Questions a step.")
    micro_tokens: int = Field(4096, ge=256, description="Padded tokens of a micro-batch.")
    train: TrainOptions = Field(
        default_factory=lambda: TrainOptions(optimiser="adamw", learning_rate=3e-4, weight_decay=0.0, schedule="constant", warmup=5),
        description="Optimiser and schedule, over all rounds.",
    )


class BestOfStage(Stage[BestOfOptions]):
    """Samples n answers, trains the best, in rounds."""

    kind, version, parallel, Options = "best-of", 1, True, BestOfOptions

    def spec_use(self, options: BestOfOptions) -> bool:
        return options.reward_model is None

    def run(self, ctx: Context[BestOfOptions]) -> dict[str, Any]:
        from norma.align.best_of import BestOf, frontier
        from norma.align.rows import read_items
        from norma.generate import Sampling

        options = ctx.options
        dtype = prepare(ctx)
        model = answering(ctx, adapted(ctx, open_model(ctx, options.from_)))
        training = BestOf(
            model,
            _scorer(ctx),
            read_items(ctx.path(options.questions)),
            Sampling(options.max_new_tokens, options.temperature),
            n=options.answers,
            count=options.count,
            rounds=options.rounds,
            epochs=options.epochs,
            size=options.batch,
            least=options.least,
            micro_tokens=options.micro_tokens,
            folder=ctx.folder,
            seed=ctx.seed,
            dtype=dtype,
            say=ctx.progress.say,
        )
        asked = f"{training.count} questions x {options.answers} answers"
        ctx.progress.say(f"{options.rounds} rounds of {asked}, {training.steps_a_round} steps of {options.batch} questions each")
        last = fit(ctx, model, training.losses, steps=training.steps)
        if not ctx.ranks.first:
            return {}
        rounds = [read_jsonl(training.path(r)) for r in range(1, options.rounds + 1)]
        curves = [frontier(rows, options.answers) for rows in rounds]
        write_json(ctx.folder / "best_of.json", {"rounds": [{"round": r, "frontier": curve} for r, curve in enumerate(curves, 1)]})
        save_model(ctx, model)
        columns = ["round", "n", "mean R", "KL of the policy of that n, nats (at most)"]
        lines = [[str(r), str(point["n"]), f"{point['reward']:.3f}", f"{point['kl']:.2f}"] for r, c in enumerate(curves, 1) for point in c]
        return {
            "model": True,
            "steps": training.steps,
            "trained": [sum(row["kept"] for row in rows) for rows in rounds],
            "loss": last.get("loss"),
            "table": {"title": "R of one answer and of the best of n", "columns": columns, "rows": lines},
        }


def _scorer(ctx: Context[BestOfOptions]) -> Scorer:
    from norma.align.best_of import ModelScorer, SpecScorer
    from norma.align.reward_model import RewardModel

    name = ctx.options.reward_model
    if name is None:
        return SpecScorer(ctx.need_spec())
    return ModelScorer(RewardModel.load(ctx.path(name)), f"reward-model:{name}")
