"""Task stage: a model learns a task of labels, labels of tokens, or answers found in a text, and is measured on what it has not seen.

a stage's model, or a new one ─→ new head ─→ all weights, LoRA, or the last layers ─→ early stopping on validation ─→ calibrated ─→ folder
test rows ─→ scores.json, predictions.jsonl, errors.html (confusion, reliability, worst examples); folds: each row held out once
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._dialling import ModelOptions
from norma.pipeline.stages._fitting import fit
from norma.pipeline.stages._learning import AdaptOptions, adapted, open_model, prepare
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    import torch

    from norma.lm import LanguageModel
    from norma.tasks.learning import Example
    from norma.tasks.model import TaskModel

Rows = list[dict[str, Any]]


class LearningOptions(AdaptOptions, StageOptions):
    """How a task is learnt."""

    last_layers: int | None = Field(None, ge=0, description="Only the last so many blocks and the head learn; 0: the head alone.")
    dropout: float | None = Field(None, ge=0, lt=1, description="Dropout while learning; left out, the model's own.")
    class_weights: Literal["balanced"] | dict[str, float] | None = Field(
        None, description="How much each label counts: balanced (rare ones as much together as common ones), or numbers."
    )
    length: int = Field(128, ge=16, description="Most tokens of a text; of a question with its window.")
    stride: int = Field(96, ge=1, description="Tokens of context from the start of one window to the next (questions).")
    longest: int = Field(30, ge=1, description="Most tokens of an answer (questions).")
    rules: Literal["squad", "cmrc"] | None = Field(None, description="Whose exact match and F1; left out: cmrc for Chinese, else squad.")
    epochs: float = Field(3.0, gt=0, description="Passes over the training rows.")
    steps: int | None = Field(None, ge=1, description="Most steps of the optimiser.")
    batch: int = Field(16, ge=1, description="Rows a step.")
    patience: int | None = Field(None, ge=1, description="Early stopping: measurements on validation rows without a better one.")
    measure_every: float = Field(1.0, gt=0, description="Epochs between measurements; the best weights are kept (with patience).")
    train: TrainOptions = Field(
        default_factory=lambda: TrainOptions(optimiser="adamw", learning_rate=3e-4, weight_decay=0.01, schedule="cosine", warmup=10),
        description="Optimiser and schedule.",
    )

    @model_validator(mode="after")
    def _adapted(self) -> LearningOptions:
        if self.lora is not None and self.last_layers is not None:
            raise ValueError("give one of lora and last_layers")
        return self


class TaskOptions(LearningOptions):
    """Options of a ``task`` stage."""

    from_: InputRef | None = Field(None, alias="from", description="The stage whose model learns the task; left out, a new one (model).")
    model: ModelOptions | None = Field(None, description="Shape of a new model: from scratch, beside a pretrained one.")
    tokenizer: InputRef | None = Field(None, description="Tokenizer stage of a new model.")
    data: InputRef = Field("data", description="The task-data stage.")
    examples: int | None = Field(None, ge=1, description="Learn from so many training rows only, drawn by the seed, each label alike.")
    unanswerable: bool = Field(False, description="Questions may have no answer: the threshold is learnt on validation rows.")
    folds: int | None = Field(
        None, ge=2, description="For small sets: as many models, each tested on a part of the training rows whose texts it has not seen."
    )
    calibrate: bool = Field(True, description="Fit a temperature on validation rows, for probabilities that can be believed.")

    @model_validator(mode="after")
    def _one(self) -> TaskOptions:
        if (self.from_ is None) == (self.model is None):
            raise ValueError("give one of from (a stage's model) and model (a new one)")
        if self.model is not None and self.tokenizer is None:
            raise ValueError("a new model needs a tokenizer")
        return self


@dataclass(frozen=True)
class Given:
    """What the task-data stage holds."""

    shape: str
    labels: list[str]
    language: str
    train: Rows
    validation: Rows
    test: Rows


class Task(Stage[TaskOptions]):
    """Killed anywhere, it goes on: each fold keeps a file of its own, training its checkpoints."""

    kind, version, Options = "task", 1, TaskOptions

    def run(self, ctx: Context[TaskOptions]) -> dict[str, Any]:
        from norma.evaluate.report.errors import render_errors, worst
        from norma.pipeline.stages import _task_scores as measure
        from norma.tasks import heads
        from norma.tasks.attending import looked

        given, dtype = read_given(ctx.path(ctx.options.data), ctx.options.data), prepare(ctx)
        if ctx.options.examples is not None:
            given = replace(given, train=few(given.train, ctx.options.examples, ctx.seed))
        crossed = _crossed(ctx, given, dtype) if ctx.options.folds else None
        task, steps = learn(ctx, _base(ctx), given, given.train, given.validation, ctx.folder, ctx.seed, dtype)
        _finish(ctx, task, given)
        rows, side = (given.test, "test") if given.test else (given.validation, "validation")
        if not rows:
            raise NormaError("there is no row to measure on", where=ctx.options.data, mend="Give the task-data stage a test file or share")
        scores, predictions = measure.scored(task, rows, language=given.language, rules=_rules(ctx, given), seed=ctx.seed)
        scores = {"measured_on": side, "rows": len(rows), "learnt_from": len(given.train), "steps": steps, **scores}
        if crossed is not None:
            scores["cross_validation"] = crossed
        write_jsonl(ctx.folder / "predictions.jsonl", predictions)
        write_json(ctx.folder / "scores.json", scores)
        looks = looked(task, worst(predictions))
        write_text(ctx.folder / "errors.html", render_errors(scores, predictions, title=ctx.name, looks=looks))
        heads.save(task.model, ctx.folder, task.told, stage=ctx.name, recipe_seed=ctx.seed)
        clear(ctx, ctx.folder)
        return {"scores": {k: v for k, v in scores.items() if isinstance(v, (int, float))}, "table": measure.table(scores)}


def read_given(folder: Path, name: str) -> Given:
    """What the task-data stage ``name`` wrote."""
    if not (folder / "task.json").is_file():
        raise NormaError(f"'{name}' holds no task", where=folder, mend="Let 'data:' name a task-data stage")
    about = read_json(folder / "task.json")
    if about["shape"] == "texts":
        mend = "Train with a pretrain stage (mix: given) or an sft stage, measure with a task-score stage"
        raise NormaError("a task of texts is not learnt by a head", where=folder, mend=mend)
    train, validation, test = (read_jsonl(folder / f"{side}.jsonl") for side in ("train", "validation", "test"))
    return Given(about["shape"], about["labels"], about["language"], train, validation, test)


def few(rows: Rows, count: int, seed: int) -> Rows:
    """``count`` of the rows, drawn by the seed, the labels in turn: of 100 rows and two labels 50 each."""
    from norma.text.split import chance

    order: dict[str, Rows] = {}
    for row in sorted(rows, key=lambda row: chance("few", seed, row["id"])):
        order.setdefault(str(row.get("label", "")), []).append(row)
    turns = [(place, label, row) for label, own in order.items() for place, row in enumerate(own)]
    return [row for _, _, row in sorted(turns, key=lambda turn: turn[:2])[:count]]


def _base(ctx: Context[TaskOptions]) -> LanguageModel:
    """The model before it learns: another stage's, or new weights."""
    from norma.pipeline.stages.pretrain import new_model
    from norma.text.tokenizer import Tokenizer

    if ctx.options.from_ is not None:
        return open_model(ctx, ctx.options.from_)
    assert ctx.options.model is not None and ctx.options.tokenizer is not None
    return new_model(ctx.options.model, Tokenizer.load(ctx.path(ctx.options.tokenizer)), ctx.seed, ctx.name)


def _rules(ctx: Context[Any], given: Given) -> Literal["squad", "cmrc"]:
    return ctx.options.rules or ("cmrc" if given.language.startswith("zh") else "squad")


def learn(
    ctx: Context[Any], base: LanguageModel, given: Given, train: Rows, validation: Rows, folder: Path, seed: int, dtype: torch.dtype
) -> tuple[TaskModel, int]:
    """A model that learnt ``train``, its best weights on ``validation`` where the recipe stops early; and after how many steps."""
    from functools import partial

    from norma.tasks import heads
    from norma.tasks.learning import TaskTraining, class_weights
    from norma.tasks.model import TaskModel
    from norma.train.early import EarlyStopping

    options = ctx.options
    model = heads.begin(base, given.shape, given.labels, dropout=options.dropout, seed=seed)
    if options.last_layers is not None:
        learning = heads.freeze(model, options.last_layers)
        ctx.progress.say(f"{learning:,} of {model.config.parameters():,} numbers learn")
    adapted(ctx, model, also=heads.fresh(model))
    told = {"shape": given.shape, "length": options.length}
    if given.shape == "questions":
        told |= {"stride": options.stride, "longest": options.longest}
    task = TaskModel(model, told)
    examples = _examples(task, given, train)
    weights = options.class_weights
    if weights == "balanced":
        seen = [t for e in examples for t in e.target if t >= 0]
        weights = dict(zip(given.labels, class_weights(seen, len(given.labels)), strict=True))
    numbers = None if weights is None or given.shape == "questions" else [float(weights.get(label, 1.0)) for label in given.labels]
    smooth = options.train.label_smoothing
    training = TaskTraining(examples, rows=options.batch, seed=seed, dtype=dtype, weights=numbers, smoothing=smooth)
    steps = max(1, round(options.epochs * training.steps_per_epoch))
    steps = min(steps, options.steps or steps)
    epochs = steps / training.steps_per_epoch
    ctx.progress.say(f"{steps} steps of {training.rows} rows, {len(examples):,} in all ({epochs:.3g} epochs)")
    state: dict[str, Any] = {}
    stopping = None
    if options.patience is not None:
        if not validation:
            raise NormaError("early stopping needs validation rows", where=options.data, mend="Give validation, or validation_share")
        every = max(1, round(options.measure_every * training.steps_per_epoch))
        measure = partial(_held_out, task, validation, _rules(ctx, given))
        how: dict[str, Any] = {"every": every, "patience": options.patience, "state": state, "folder": folder, "say": ctx.progress.say}
        folder.mkdir(parents=True, exist_ok=True)
        stopping = EarlyStopping(model.transformer, measure, **how)
    fit(ctx, model, training.losses, steps=steps, folder=folder, state=state, seed=seed, until=stopping)
    if stopping is not None:
        steps, value = stopping.finish(steps)
        ctx.progress.say(f"the weights after step {steps} are kept: {value:.4f} on validation rows")
    return task, steps


def _examples(task: TaskModel, given: Given, rows: Rows) -> list[Example]:
    from norma.tasks import encode, spans
    from norma.tasks.learning import Example

    number = {label: i for i, label in enumerate(given.labels)}
    if given.shape == "labels":
        pairs = [row["pair"] for row in rows] if any("pair" in row for row in rows) else None
        read = encode.readings(task.model, [row["text"] for row in rows], pairs, task.length)
        return [Example(r, (number[row["label"]],)) for r, row in zip(read, rows, strict=True)]
    if given.shape == "tokens":
        tokens = encode.token_readings(task.model, [row["tokens"] for row in rows], task.length)
        return [Example(t.reading, tuple(t.targets([number[x] for x in row["labels"]]))) for t, row in zip(tokens, rows, strict=True)]
    learnable = [row for row in rows if not row["answers"] or any(a["start"] >= 0 for a in row["answers"])]
    made = spans.windows(task.model, learnable, length=task.length, stride=int(task.told["stride"]))
    return [Example(w.reading, spans.targets(w, learnable[w.row]["answers"])) for w in made]


def _held_out(task: TaskModel, rows: Rows, rules: Literal["squad", "cmrc"]) -> float:
    """Share of right labels, or mean F1 of answers: what early stopping watches."""
    from norma.text import squad

    if task.shape == "questions":
        return sum(squad.f1(row["predicted"], [a["text"] for a in row["answers"]], rules) for row in task.predict(rows)) / len(rows)
    right = [
        float(row["predicted"] == row["label"])
        if task.shape == "labels"
        else sum(a == b for a, b in zip(row["predicted"], row["labels"], strict=True)) / len(row["labels"])
        for row in task.predict(rows)
    ]
    return sum(right) / len(right)


def _crossed(ctx: Context[TaskOptions], given: Given, dtype: torch.dtype) -> dict[str, Any]:
    """Each training row predicted by a model that has not seen its text; a fold that is done is read from its file."""
    from norma.pipeline.stages import _task_scores as measure
    from norma.tasks.rows import key
    from norma.tasks.scores import folds, grouped_folds

    count, shape = ctx.options.folds, given.shape
    assert count is not None
    if shape == "labels":
        parts = folds([row["label"] for row in given.train], count, ctx.seed)
    else:
        parts = grouped_folds([key(row) for row in given.train], count, ctx.seed)
    said: list[Any] = [None] * len(given.train)
    for number, held_out in enumerate(parts):
        folder = ctx.folder / "folds" / f"{number}"
        path = ctx.folder / "folds" / f"{number}.json"
        if not path.exists():
            ctx.progress.say(f"fold {number + 1} of {count}")
            out = set(held_out)
            rest, asked = ([row for i, row in enumerate(given.train) if (i in out) == held] for held in (False, True))
            task, _ = learn(ctx, _base(ctx), given, rest, given.validation, folder, (ctx.seed << 8) + number + 1, dtype)
            if shape == "questions":
                _finish(ctx, task, given)  # when to be silent
            write_json(path, task.label_logits(asked).tolist() if shape == "labels" else task.predict(asked))
        clear(ctx, folder)
        for i, one in zip(sorted(held_out), read_json(path), strict=True):
            said[i] = one
    if shape == "labels":
        metrics = measure.label_metrics(given.train, said, given.labels, seed=ctx.seed)
    elif shape == "tokens":
        metrics = measure.token_metrics(said, given.labels, seed=ctx.seed)
    else:
        metrics, _ = measure.answer_metrics(said, _rules(ctx, given), seed=ctx.seed)
    return {"folds": count, **metrics}


def _finish(ctx: Context[TaskOptions], task: TaskModel, given: Given) -> None:
    """The temperature, or the threshold of silence, from validation rows."""
    from norma.tasks import scores
    from norma.tasks.spans import null_threshold
    from norma.text import squad

    options, rows = ctx.options, given.validation
    if given.shape == "labels" and options.calibrate and len(rows) >= 10:
        numbers = [given.labels.index(row["label"]) for row in rows]
        task.told["temperature"] = scores.fit_temperature(task.label_logits(rows), numbers)
    if given.shape == "questions" and options.unanswerable and rows:
        found, rules = task.found(rows), _rules(ctx, given)
        answers = [[a["text"] for a in row["answers"]] for row in rows]
        said = [squad.f1(f.text, a, rules) for f, a in zip(found, answers, strict=True)]
        task.told["null_threshold"] = null_threshold([f.margin for f in found], said, [float(not a) for a in answers])


def clear(ctx: Context[Any], folder: Path) -> None:
    """Drop what only a killed run needs."""
    from norma.train import checkpoint
    from norma.train.early import BEST

    checkpoint.remove(folder, ctx.options.train)
    (folder / BEST).unlink(missing_ok=True)
