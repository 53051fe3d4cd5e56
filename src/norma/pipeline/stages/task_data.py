"""Task-data stage: files of people as rows of a task, divided into training, validation and test.

tables, JSON lines, SQuAD, CoNLL, parallel files ─→ train.jsonl, validation.jsonl, test.jsonl, task.json
                                                 └→ text.*.jsonl (for a tokenizer, and to pretrain on), conversations.*.jsonl (for sft)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from norma.base.errors import NormaError
from norma.base.files import write_json, write_jsonl
from norma.base.hashing import file_digest
from norma.pipeline.stage import Context, Stage, StageOptions

Side = Literal["train", "validation", "test"]
SIDES: tuple[Side, ...] = ("train", "validation", "test")


class TaskDataOptions(StageOptions):
    """Options of a ``task-data`` stage."""

    shape: Literal["labels", "tokens", "questions", "texts"] = Field(
        description="labels (of texts and pairs), tokens (a label each), questions (SQuAD), or texts (a source, a target)."
    )
    train: str = Field(description="File of training rows (.tsv .csv .jsonl .json .parquet ..., each also .gz).")
    train_target: str | None = Field(None, description="The other side of a parallel corpus, line by line (shape texts).")
    validation: str | None = Field(None, description="File of validation rows; left out, validation_share of the training rows.")
    validation_target: str | None = Field(None, description="Its other side.")
    test: str | None = Field(None, description="File of test rows; left out, test_share of the training rows.")
    test_target: str | None = Field(None, description="Its other side.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="Our name of a column (text, pair, label, source, target, tokens, labels) to the file's."
    )
    validation_share: float = Field(0.1, ge=0, lt=1, description="Share of the training file that is held out to validate.")
    test_share: float = Field(0.1, ge=0, lt=1, description="Share of the training file that is held out to test.")
    most: int | None = Field(None, ge=1, description="Most training rows, drawn by the seed.")
    most_held_out: int | None = Field(None, ge=1, description="Most rows of validation and of test each, drawn by the seed.")
    instruction: str = Field("", description="Put before each source, such as 'translate English to German: ' (shape texts).")
    language: str = Field("en", description="Language of what is written or answered (BCP-47): how it is scored follows from it.")


class TaskData(Stage[TaskDataOptions]):
    """Rows of one input stand on one side only; goes stale when a file that is read changes."""

    kind, version, Options = "task-data", 1, TaskDataOptions

    def fingerprint(self, options: TaskDataOptions, base: Path) -> Any:
        names = [getattr(options, f"{side}{end}") for side in SIDES for end in ("", "_target")]
        paths = [(base / Path(name).expanduser()).resolve() for name in names if name is not None]
        return {str(n): file_digest(p) if p.is_file() else None for n, p in zip([n for n in names if n], paths, strict=True)}

    def run(self, ctx: Context[TaskDataOptions]) -> dict[str, Any]:
        options = ctx.options
        sides = _sides(ctx)
        labels = sorted({label for row in sides["train"] for label in _labels(row, options.shape)})
        strange = sorted({x for s in ("validation", "test") for row in sides[s] for x in _labels(row, options.shape)} - set(labels))
        if strange:
            what = f"labels that no training row has: {', '.join(strange[:3])}"
            raise NormaError(what, where=ctx.name, mend="Take more training rows, or leave those rows out")
        for side in SIDES:
            rows = sides[side]
            write_jsonl(ctx.folder / f"{side}.jsonl", rows)
            write_jsonl(ctx.folder / f"text.{side}.jsonl", ({"id": row["id"], "text": t} for row in rows for t in _texts(row)))
            if options.shape == "texts":
                write_jsonl(ctx.folder / f"conversations.{side}.jsonl", map(_conversation, rows))
        about = {"shape": options.shape, "labels": labels, "language": options.language}
        write_json(ctx.folder / "task.json", about)
        counts = {side: len(rows) for side, rows in sides.items()}
        said = f"; labels: {', '.join(labels[:8])}{' ...' if len(labels) > 8 else ''}" if labels else ""
        ctx.progress.say(", ".join(f"{n:,} rows of {side}" for side, n in counts.items()) + said)
        return counts | {"labels": len(labels)}


def _sides(ctx: Context[TaskDataOptions]) -> dict[Side, list[dict[str, Any]]]:
    from norma.tasks.rows import key, read_rows
    from norma.text.quarantine import Quarantine
    from norma.text.split import chance

    options = ctx.options
    sides: dict[Side, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with Quarantine(ctx.folder / "quarantine.jsonl") as quarantine:
        for side in SIDES:
            name, second = getattr(options, side), getattr(options, f"{side}_target")
            if name is None:
                continue
            other = None if second is None else ctx.outside(second)
            sides[side] = read_rows(ctx.outside(name), options.shape, options.columns, quarantine, second=other)
        if len(quarantine):
            ctx.progress.say(f"{len(quarantine)} rows were set aside: quarantine.jsonl says why")
    everything, kept = sides["train"], []
    held = {key(row) for side in ("validation", "test") for row in sides[side]}
    leaked = 0
    for row in everything:
        where = chance("task", ctx.seed, key(row))
        if key(row) in held:
            leaked += 1  # a text that a file of its own tests must not be learnt
        elif options.test is None and where < options.test_share:
            sides["test"].append(row)
        elif options.validation is None and where >= 1 - options.validation_share:
            sides["validation"].append(row)
        else:
            kept.append(row)
    if leaked:
        ctx.progress.say(f"{leaked} training rows stand in validation or test too: left out of training")
    sides["train"] = kept
    for side, most in (("train", options.most), ("validation", options.most_held_out), ("test", options.most_held_out)):
        if most is not None:
            drawn = sorted(sides[side], key=lambda row: chance("most", ctx.seed, row["id"]))[:most]
            chosen = {id(row) for row in drawn}
            sides[side] = [row for row in sides[side] if id(row) in chosen]
    if not sides["train"]:
        raise NormaError("no training row is left", where=options.train, mend="Lower validation_share and test_share, or give more rows")
    if options.instruction:
        sides = {side: [row | {"source": options.instruction + row["source"]} for row in rows] for side, rows in sides.items()}
    return sides


def _labels(row: dict[str, Any], shape: str) -> list[str]:
    return [row["label"]] if shape == "labels" else row["labels"] if shape == "tokens" else []


def _texts(row: dict[str, Any]) -> list[str]:
    """What a tokenizer is trained on."""
    if "tokens" in row:
        from norma.tasks.encode import spaced

        return ["".join(spaced(row["tokens"]))]
    return [row[name] for name in ("text", "pair", "source", "target", "context", "question") if name in row]


def _conversation(row: dict[str, Any]) -> dict[str, Any]:
    turns = [{"role": "user", "content": row["source"]}, {"role": "assistant", "content": row["target"]}]
    return {"id": row["id"], "messages": turns}
