"""Learning-curve stage: what does pretraining buy? Each task learnt from few and many rows, from each base, several times.

task x base x rows x seed ─→ cells/<...>.json, one after another: a killed run goes on at the cell (and step) it was in
                          ─→ curve.json (means, intervals, paired tests against the first base), curve.svg

The text baseline is TF-IDF with logistic regression (scikit-learn). All models of one task are measured on the same test rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from norma.base.errors import NormaError
from norma.base.files import read_json, write_json, write_text
from norma.pipeline.stage import Context, InputRef, Stage
from norma.pipeline.stages._dialling import ModelOptions
from norma.pipeline.stages._learning import open_model, prepare
from norma.pipeline.stages.task import Given, LearningOptions, clear, few, learn, read_given

if TYPE_CHECKING:
    import torch

    from norma.lm import LanguageModel

LOOKS = 6  # times that a cell's training is measured on validation rows, at most
MOST_UNITS = 200_000  # words, or runs of characters, that TF-IDF counts: the commonest


class CurveTask(BaseModel):
    """One task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[^/\\]+$", description="What it is called in the table.")
    data: InputRef = Field(description="Its task-data stage (shape labels).")
    bases: list[str] | None = Field(None, description="Names of the bases that know its language; left out, all.")


class CurveBase(BaseModel):
    """What a task is learnt from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[^/\\]+$", description="What it is called in the table.")
    model: InputRef | dict[str, InputRef] | None = Field(
        None, description="The stage whose model it is, or one a language: {en: ..., zh: ...}."
    )
    new: ModelOptions | None = Field(None, description="Shape of a new model, which knows nothing.")
    tokenizer: InputRef | dict[str, InputRef] | None = Field(None, description="Tokenizer of a new model, or one a language.")
    words: bool = Field(False, description="No network: TF-IDF of words and pairs of them (of Chinese, of characters), a logistic model.")
    learning_rate: float | None = Field(None, gt=0, description="Another learning rate for this base.")

    @model_validator(mode="after")
    def _one(self) -> CurveBase:
        if (self.model is not None) + (self.new is not None) + self.words != 1:
            raise ValueError("give one of model (a stage), new (a shape) and words: true")
        if self.new is not None and self.tokenizer is None:
            raise ValueError("a new model needs a tokenizer")
        return self


class LearningCurveOptions(LearningOptions):
    """Options of a ``learning-curve`` stage."""

    tasks: list[CurveTask] = Field(min_length=1, description="What is learnt.")
    bases: list[CurveBase] = Field(min_length=1, description="From what; the others are tested against the first.")
    rows: list[int | None] = Field([100, 1000, None], min_length=1, description="Training rows; null: all.")
    seeds: list[int] = Field([1, 2, 3], min_length=1, description="Each draws other rows, another head and another order.")
    least_steps: int = Field(150, ge=1, description="Few rows are passed over until so many steps are done.")
    seconds: float = Field(40.0, gt=0, description="Most seconds of training a cell; told from a few steps of each base, then frozen.")
    validation_rows: int = Field(300, ge=10, description="Validation rows that early stopping looks at: a cell is to be short.")


@dataclass(frozen=True)
class Cell:
    """One model to train and test."""

    task: CurveTask
    base: CurveBase
    rows: int | None
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task.name}.{self.base.name}.{self.rows or 'all'}.{self.seed}"


class LearningCurve(Stage[LearningCurveOptions]):
    """A cell is a file; it is never made twice."""

    kind, version, Options = "learning-curve", 1, LearningCurveOptions

    def run(self, ctx: Context[LearningCurveOptions]) -> dict[str, Any]:
        from norma.evaluate.report.curves import curve_svg

        cells = list(_cells(ctx.options))
        given = {task.name: read_given(ctx.path(task.data), task.data) for task in ctx.options.tasks}
        for name, found in given.items():
            if found.shape != "labels" or not found.test:
                raise NormaError(f"task '{name}' has no test rows with labels", where=ctx.name, mend="Take shape: labels, and a test file")
        for number, cell in enumerate(cells):
            path = ctx.folder / "cells" / f"{cell.name}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                began = time.monotonic()
                made = _made(ctx, cell, given[cell.task.name])
                write_json(path, made)
                seconds = time.monotonic() - began
                ctx.progress.say(f"{cell.name}: {sum(made['right']) / len(made['right']):.3f} in {seconds:.0f} s, {made['steps']} steps")
            ctx.progress.update(number + 1, len(cells))
        points = _points(ctx, cells)
        write_json(ctx.folder / "curve.json", {"points": points, "reference": ctx.options.bases[0].name})
        write_text(ctx.folder / "curve.svg", curve_svg(points, title="Accuracy on test rows, by rows learnt from"))
        return {"table": _table(points), "publish": ["curve.svg", "curve.json"]}


def _cells(options: LearningCurveOptions) -> Iterator[Cell]:
    for task in options.tasks:
        for base in options.bases:
            if task.bases is None or base.name in task.bases:
                yield from (Cell(task, base, rows, seed) for rows in options.rows for seed in options.seeds)


def _made(ctx: Context[LearningCurveOptions], cell: Cell, given: Given) -> dict[str, Any]:
    """Which test rows a cell's model has right."""
    rows = given.train if cell.rows is None else few(given.train, cell.rows, (ctx.seed << 8) + cell.seed)
    if cell.base.words:
        return {"right": _by_words(rows, given), "steps": 0, "rows": len(rows)}
    dtype = prepare(ctx)
    base = _base(ctx, cell, given.language)
    options = ctx.options
    per_epoch = max(1, len(rows) // min(options.batch, len(rows)))
    wanted = max(options.least_steps, round(options.epochs * per_epoch))
    pace = ctx.plan.choose(f"seconds a step: {cell.task.name}, {cell.base.name}", lambda: _pace(ctx, base, given, dtype))
    steps = max(1, min(wanted, int(options.seconds / pace)))
    changes: dict[str, Any] = {"steps": steps, "epochs": max(options.epochs, steps / per_epoch + 1)}
    changes["measure_every"] = max(options.measure_every, steps / per_epoch / LOOKS)
    if cell.base.learning_rate is not None:
        changes["train"] = options.train.model_copy(update={"learning_rate": cell.base.learning_rate})
    own = replace(ctx, options=options.model_copy(update=changes))
    folder = ctx.folder / "cells" / cell.name
    validation = few(given.validation, options.validation_rows, ctx.seed)
    task, done = learn(own, base, given, rows, validation, folder, (ctx.seed << 8) + cell.seed, dtype)
    predicted = task.predict(given.test)
    clear(own, folder)
    return {"right": [int(p["predicted"] == p["label"]) for p in predicted], "steps": done, "rows": len(rows)}


def _base(ctx: Context[LearningCurveOptions], cell: Cell, language: str) -> LanguageModel:
    from norma.pipeline.stages.pretrain import new_model
    from norma.text.tokenizer import Tokenizer

    if cell.base.model is not None:
        return open_model(ctx, _spoken(cell.base.model, language, cell.base.name))
    assert cell.base.new is not None and cell.base.tokenizer is not None
    tokenizer = _spoken(cell.base.tokenizer, language, cell.base.name)
    return new_model(cell.base.new, Tokenizer.load(ctx.path(tokenizer)), (ctx.seed << 8) + cell.seed, cell.base.name)


def _spoken(stage: str | dict[str, str], language: str, name: str) -> str:
    """The stage for a language: of its first part where there is none of it all."""
    if isinstance(stage, str):
        return stage
    found = stage.get(language) or stage.get(language.split("-")[0])
    if found is None:
        mend = f"It has {', '.join(stage)}; or leave it out of that task's bases"
        raise NormaError(f"base '{name}' has no stage for '{language}'", mend=mend)
    return found


def _pace(ctx: Context[LearningCurveOptions], base: LanguageModel, given: Given, dtype: torch.dtype) -> float:
    """Seconds a step takes here."""
    from norma.tasks import encode, heads
    from norma.tasks.learning import Example, TaskTraining
    from norma.train.compiling import seconds_per_step

    model = heads.begin(base, given.shape, given.labels, dropout=ctx.options.dropout, seed=0)
    read = encode.readings(model, [row["text"] for row in given.train[:200]], None, ctx.options.length)
    training = TaskTraining([Example(r, (0,)) for r in read], rows=ctx.options.batch, seed=0, dtype=dtype)
    return float(seconds_per_step(model.transformer.train(), training.losses))


def _by_words(rows: list[dict[str, Any]], given: Given) -> list[int]:
    """The traditional baseline: how strong regularisation is, validation rows say."""
    from norma.tasks.scores import metrics

    metrics()
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    units = {"analyzer": "char", "ngram_range": (1, 3)} if given.language.startswith("zh") else {"ngram_range": (1, 2)}
    vectors = TfidfVectorizer(sublinear_tf=True, max_features=MOST_UNITS, **units)
    x, held_out = vectors.fit_transform(row["text"] for row in rows), given.validation or rows
    y, held_out_x = [row["label"] for row in rows], vectors.transform(row["text"] for row in held_out)
    tried = [LogisticRegression(C=strength, max_iter=1000).fit(x, y) for strength in (0.3, 1.0, 3.0, 10.0, 30.0)]
    best = max(tried, key=lambda model: float(model.score(held_out_x, [row["label"] for row in held_out])))
    said = best.predict(vectors.transform(row["text"] for row in given.test))
    return [int(a == row["label"]) for a, row in zip(said, given.test, strict=True)]


def _points(ctx: Context[LearningCurveOptions], cells: list[Cell]) -> list[dict[str, Any]]:
    """A row for each task, base and number of rows: the mean over seeds and test rows, clustered by test row."""
    from norma.evaluate.statistics import clustered_rate, holm, paired_difference

    found: dict[tuple[str, str, int | None], list[dict[str, Any]]] = {}
    for cell in cells:
        row = read_json(ctx.folder / "cells" / f"{cell.name}.json")
        found.setdefault((cell.task.name, cell.base.name, cell.rows), []).append(row)
    reference, points = ctx.options.bases[0].name, []
    for (task, base, rows), seeds in found.items():
        right = [float(x) for seed in seeds for x in seed["right"]]
        clusters = [str(i) for seed in seeds for i in range(len(seed["right"]))]
        rate = clustered_rate(right, clusters)
        point: dict[str, Any] = {"task": task, "base": base, "rows": seeds[0]["rows"], "asked": rows, "seeds": len(seeds), "p_holm": None}
        point |= {"rate": rate.rate, "low": rate.low, "high": rate.high, "each": [sum(s["right"]) / len(s["right"]) for s in seeds]}
        before = found.get((task, reference, rows))
        if base != reference and before is not None:
            change = paired_difference([float(x) for s in before for x in s["right"]], right, clusters, seed=ctx.seed)
            point["over_reference"] = {"delta": change.delta, "low": change.low, "high": change.high, "p": change.p}
        points.append(point)
    tested = [p for p in points if p.get("over_reference", {}).get("p") is not None]
    for point, p in zip(tested, holm([p["over_reference"]["p"] for p in tested]), strict=True):
        point["p_holm"] = p
    for point in points:
        point["reference_needs"] = _needed(points, point, reference)
    return points


def _needed(points: list[dict[str, Any]], point: dict[str, Any], reference: str) -> int | None:
    """The fewest rows, of those measured, from which the reference is as good on the average; None: with none of them."""
    own = [p for p in points if p["task"] == point["task"] and p["base"] == reference and p["rate"] >= point["rate"]]
    return min((p["rows"] for p in own), default=None)


def _table(points: list[dict[str, Any]]) -> dict[str, Any]:
    columns = ["task", "base", "rows", "accuracy", "low", "high", "over the first", "Holm's p", "the first needs"]
    lines = []
    for p in points:
        delta, needs = p.get("over_reference", {}).get("delta"), p["reference_needs"]
        changed = [None if delta is None else round(delta, 4), None if p["p_holm"] is None else round(p["p_holm"], 4)]
        rates = [round(p[key], 4) for key in ("rate", "low", "high")]
        lines.append([p["task"], p["base"], p["rows"], *rates, *changed, "more" if needs is None else needs])
    return {"title": "What pretraining buys: accuracy on test rows, mean over seeds", "columns": columns, "rows": lines}
