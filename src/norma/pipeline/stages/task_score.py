"""Task-score stage: a model's translations or summaries by beam search, beside what people wrote.

test rows of a task-data stage (texts) ─→ beam search ─→ written.jsonl, part by part ─→ scores.json, predictions.jsonl, errors.html
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._learning import open_model, prepare

PART = 128  # texts that are written before they are kept


class TaskScoreOptions(StageOptions):
    """Options of a ``task-score`` stage."""

    model: InputRef = Field(description="The stage whose model writes.")
    data: InputRef = Field("data", description="The task-data stage (shape texts).")
    side: Literal["validation", "test"] = Field("test", description="Which rows.")
    metrics: list[Literal["bleu", "chrf", "rouge"]] = Field(["bleu", "chrf"], min_length=1, description="bleu, chrf (sacreBLEU), rouge.")
    beams: int = Field(5, ge=1, description="Beams; 1 takes the likeliest token each time.")
    length_penalty: float = Field(1.0, description="Scores are divided by tokens to this power: above 0 longer answers gain.")
    max_new_tokens: int = Field(128, ge=1, description="Longest text in tokens.")
    most: int | None = Field(None, ge=1, description="Only the first so many rows.")
    chat: bool = Field(False, description="An encoder-decoder reads the source as the question of a chat, as an sft stage trains it.")


class TaskScore(Stage[TaskScoreOptions]):
    """What is written stands in parts: a killed run does not write them again."""

    kind, version, Options = "task-score", 1, TaskScoreOptions

    def run(self, ctx: Context[TaskScoreOptions]) -> dict[str, Any]:
        from norma.evaluate.report.errors import render_errors
        from norma.pipeline.stages._task_scores import table
        from norma.tasks.writing import sentence_scores, text_scores

        options = ctx.options
        folder = ctx.path(options.data)
        about = read_json(folder / "task.json")
        if about["shape"] != "texts":
            raise NormaError("task-score is for tasks of texts", where=folder, mend="A task stage measures itself")
        rows = read_jsonl(folder / f"{options.side}.jsonl")[: options.most]
        if not rows:
            raise NormaError(f"there is no row of {options.side}", where=folder, mend="Give the task-data stage a file for it")
        said = _written(ctx, rows)
        references = [row["target"] for row in rows]
        chinese = about["language"].startswith("zh")
        found = text_scores(said, references, wanted=options.metrics, chinese=chinese, seed=ctx.seed)
        scores = {"shape": "texts", "measured_on": options.side, "rows": len(rows), **found}
        near = sentence_scores(said, references)
        predictions = [{**row, "predicted": s, "right": x / 100} for row, s, x in zip(rows, said, near, strict=True)]
        write_jsonl(ctx.folder / "predictions.jsonl", predictions)
        write_json(ctx.folder / "scores.json", scores)
        write_text(ctx.folder / "errors.html", render_errors(scores, predictions, title=ctx.name))
        return {"scores": {name: value["score"] for name, value in found.items()}, "table": table(scores)}


def _written(ctx: Context[TaskScoreOptions], rows: list[dict[str, Any]]) -> list[str]:
    from norma.tasks.writing import write

    options = ctx.options
    prepare(ctx)
    model = open_model(ctx, options.model)
    names = ("beams", "max_new_tokens", "length_penalty", "chat")
    how: dict[str, Any] = {name: getattr(options, name) for name in names}
    said: list[str] = []
    for start in range(0, len(rows), PART):
        path = ctx.folder / "written" / f"{start:06}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, write(model, [row["source"] for row in rows[start : start + PART]], **how))
        said += read_json(path)
        ctx.progress.update(min(start + PART, len(rows)), len(rows))
    return said
