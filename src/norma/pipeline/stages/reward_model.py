"""Reward-model stage: learn R from what people said of answers. Not the ``reward`` stage, which trains a policy to earn it.

pairs or marks ─→ texts ─→ new head on the model's backbone ─→ losses ─→ train ─→ centred, calibrated ─→ classification folder
held-out rows  ─→ accuracy ± interval, margin, calibration error, correlation with length             ─→ quality.json
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from norma.align.reward_model_options import Heads, RewardModelOptions
from norma.base.errors import NormaError
from norma.base.files import read_jsonl, write_json
from norma.check.folders import Reads
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._fitting import fit
from norma.pipeline.stages._learning import AdaptOptions, adapted, open_model, prepare
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    from norma.align.reward_model import RewardModel
    from norma.align.reward_training import Judgement, RewardTraining

MOST_REFERENCES = 2000  # answers whose mean becomes 0
SHOWN = 80  # tokens of a text on the screen: its end, where the answer is


class RewardModelStageOptions(AdaptOptions, StageOptions):
    """Options of a ``reward-model`` stage."""

    from_: InputRef = Field(alias="from", description="The stage whose model gets another head: a decoder, an encoder, or both.")
    data: list[InputRef] = Field(description="Files of pairs or marks to learn from, such as pairs/pairs.train.jsonl.")
    validation: list[InputRef] = Field(default_factory=list, description="Files to measure on; none: validation_share of the sources.")
    validation_share: float = Field(0.1, gt=0, lt=1, description="Share of the sources that is held out where no file is given.")
    heads: Heads = Field("pair", description="pair: one better than the other; score: a number an answer; rules: one mark a rule.")
    reads: Reads | None = Field(None, description="chat, pair or response; null: pair with an encoder, else chat.")
    reference: InputRef | None = Field(
        None, description="Conversations, pairs or marks whose answers get a mean reward of 0; null: those learnt from. Not for rules."
    )
    epochs: float = Field(1.0, gt=0, description="Passes over what is learnt from.")
    learning: RewardModelOptions = Field(default_factory=RewardModelOptions, description="How judgements are learnt.")
    train: TrainOptions = Field(
        default_factory=lambda: TrainOptions(optimiser="adamw", learning_rate=3e-4, weight_decay=0.0, schedule="cosine", warmup=5),
        description="Optimiser and schedule.",
    )


class RewardModelStage(Stage[RewardModelStageOptions]):
    """Trains a reward model, or a classifier of rules, and says how good it is on what it has not seen."""

    kind, version, parallel, Options = "reward-model", 1, True, RewardModelStageOptions

    def run(self, ctx: Context[RewardModelStageOptions]) -> dict[str, Any]:
        from norma.align.reward_model import REWARD, RewardModel
        from norma.align.reward_training import RewardTraining
        from norma.tasks.heads import fresh
        from norma.train import checkpoint

        options, dtype = ctx.options, prepare(ctx)
        model = open_model(ctx, options.from_)
        rows = _rows(ctx, options.data)
        names = sorted({rule for _, row in rows for rule in row.get("rules") or {}}) if options.heads == "rules" else REWARD
        if not names:
            raise NormaError("no row has a mark under a rule", where=options.data[0], mend="heads: rules learns from 'rules' of marks")
        reward = RewardModel.begin(model, names, options.reads, seed=ctx.seed)
        adapted(ctx, reward.model, also=fresh(reward.model))
        learnt, held_out = _judgements(ctx, reward, rows)
        training = RewardTraining(reward, learnt, options.heads, options.learning, seed=ctx.seed, dtype=dtype)
        steps = max(1, round(options.epochs * len(training.judged) / min(options.learning.rows, len(training.judged))))
        _say(ctx, reward, training, learnt, held_out, steps)
        last = fit(ctx, reward.model, training.losses, steps=steps)
        if not ctx.ranks.first:
            return {}
        quality = _finish(ctx, reward, training, held_out)
        write_json(ctx.folder / "quality.json", quality)
        reward.save(ctx.folder, stage=ctx.name, recipe_seed=ctx.seed, heads=options.heads)
        checkpoint.remove(ctx.folder, options.train)
        return {"steps": steps, "rows": len(training.judged), "loss": last.get("loss"), "quality": quality, "table": _table(quality)}


def _rows(ctx: Context[RewardModelStageOptions], files: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """(place, row) of every row of the files."""
    found = []
    for reference in files:
        path = ctx.path(reference)
        if not path.is_file():
            mend = "Look into the stage's folder for the .jsonl files"
            raise NormaError(f"'{reference}' is not a file of that stage", where=path, mend=mend)
        found += [(f"{reference}:{line}", row) for line, row in enumerate(read_jsonl(path), 1)]
    return found


def _judgements(
    ctx: Context[RewardModelStageOptions], reward: RewardModel, rows: list[tuple[str, dict[str, Any]]]
) -> tuple[list[Judgement], list[Judgement]]:
    """What is learnt from, and what is measured on: files of their own, or other sources of the same files."""
    from norma.align.reward_training import judgement
    from norma.text.split import split

    options = ctx.options
    learnt = [judgement(reward, row, options.heads, place) for place, row in rows]
    if options.validation:
        return learnt, [judgement(reward, row, options.heads, place) for place, row in _rows(ctx, options.validation)]
    sides = [split(j.source, ctx.seed, options.validation_share, use=ctx.name) for j in learnt]
    train, held_out = ([j for j, s in zip(learnt, sides, strict=True) if s == side] for side in ("train", "validation"))
    if not held_out:
        raise NormaError("no source was held out to measure on", mend="Raise validation_share, or name files under 'validation'")
    return train, held_out


def _say(
    ctx: Context[RewardModelStageOptions],
    reward: RewardModel,
    training: RewardTraining,
    learnt: list[Judgement],
    held_out: list[Judgement],
    steps: int,
) -> None:
    """What is learnt from, and one judgement as it is read."""
    from rich.markup import escape

    options, count = ctx.options, len(training.judged)
    what, left = "pairs" if options.heads == "pair" else "answers", len(learnt) - count
    ctx.progress.say(
        f"{steps} steps of {min(options.learning.rows, count)} {what}, {count} in all ({options.epochs:g} epochs), "
        f"measured on {len(held_out)}" + (f"; {left} left out: too long, or without a mark" if left else "")
    )
    shown = [escape(reward.model.tokenizer.decode(text.ids[-SHOWN:], skip_special=False)) for text in training.judged[0].texts]
    ctx.progress.say("one of them, read to its last token: " + "  [dim]over[/]  ".join(f"[bold]{text}[/]" for text in shown))


def _finish(
    ctx: Context[RewardModelStageOptions], reward: RewardModel, training: RewardTraining, held_out: list[Judgement]
) -> dict[str, Any]:
    """Centre or calibrate the head; returns the quality of what is saved."""
    from norma.align.rows import choose
    from norma.pipeline.stages import _reward_quality as quality

    options = ctx.options
    fitting = [j for j in held_out if all(map(reward.fits, j.texts))]
    if len(fitting) < len(held_out):
        ctx.progress.say(f"{len(held_out) - len(fitting)} of {len(held_out)} held-out rows are longer than the model reads: not measured")
    if not fitting:
        raise NormaError("no held-out row is short enough to be read", mend="Name files with shorter answers under 'validation'")
    if options.heads == "rules":
        return quality.rules(reward, fitting, seed=ctx.seed)
    texts = [j.texts for j in training.judged]
    if options.reference is not None:
        texts = [(reward.read(*answer),) for _, row in _rows(ctx, [options.reference]) for answer in _answers(row)]
        texts = [group for group in texts if all(map(reward.fits, group))]
        if not texts:
            raise NormaError("no reference answer is short enough to be read", where=options.reference, mend="Name another file")
    reward.finish(centre=reward.rate(choose(texts, MOST_REFERENCES, ctx.seed)).mean(dim=0))
    if options.heads == "pair":
        return quality.pairs(reward, fitting)
    return quality.scores(reward, fitting, options.learning, training.mean, seed=ctx.seed)


def _answers(row: dict[str, Any]) -> list[tuple[Any, str]]:
    """(prompt, answer) of a row of pairs, marks or conversations."""
    found = [(row["messages"], row[key]) for key in ("chosen", "rejected", "answer") if key in row]
    return found or [(row["messages"][:-1], row["messages"][-1]["content"])]


def _table(quality: dict[str, Any]) -> dict[str, Any]:
    """What is printed when the run ends."""
    parts = quality.get("rules", {"reward": quality})
    columns = ["head", "n", "accuracy", "low", "high", "margin", "calibration error", "length"]
    lines = []
    for name, q in parts.items():
        rate = [q["accuracy"][key] for key in ("rate", "low", "high")]
        lines.append([name, q["n"], *rate, q["margin"], q["calibration_error"], q["length"]["correlation"]])
    return {"title": "Reward model on held-out judgements", "columns": columns, "rows": lines}
