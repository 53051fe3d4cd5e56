"""Problems stage: questions whose answer can be verified, from arithmetic or a file, divided into training and validation.

arithmetic, GSM8K-style files ─→ qa.train.jsonl, qa.validation.jsonl (facts: the right answer) and text.*.jsonl, the same as text
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from norma.base.errors import NormaError
from norma.base.files import write_jsonl
from norma.base.hashing import file_digest
from norma.pipeline.stage import Context, Stage, StageOptions


class Arithmetic(BaseModel):
    """Problems of two numbers; each stands on one side only, training or validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operations: list[Literal["+", "-", "*"]] = Field(["+"], min_length=1, description="Which operations: +, -, *.")
    smallest: int = Field(0, description="Smallest number.")
    largest: int = Field(99, description="Largest number.")
    count: int | None = Field(None, ge=2, description="How many problems, drawn by the seed; left out, all there are.")
    working: bool = Field(False, description="Whether worked answers show the step between: 17 + 25 = 30 + 12 = 42.")
    chinese_share: float = Field(0.0, ge=0, le=1, description="Share of the problems that are asked in Chinese.")

    @model_validator(mode="after")
    def _some(self) -> Arithmetic:
        if self.largest < self.smallest:
            raise ValueError(f"largest ({self.largest}) is below smallest ({self.smallest})")
        if len(self.operations) * (self.largest - self.smallest + 1) ** 2 > 4_000_000:
            raise ValueError("these are more than 4 million problems: lower largest")
        return self


class ProblemsOptions(StageOptions):
    """Options of a ``problems`` stage."""

    arithmetic: Arithmetic | None = Field(None, description="Arithmetic, made on the spot.")
    path: str | None = Field(None, description="A file of word problems: question, answer that ends with '#### 18' (GSM8K's layout).")
    validation_path: str | None = Field(None, description="Another such file for validation; left out, a share of the first.")
    validation_share: float = Field(0.1, gt=0, lt=1, description="Share of the problems held out, by a hash of each.")
    examples: int | None = Field(None, ge=1, description="Training problems that examples.train.jsonl holds, for fine-tuning on a few.")

    @model_validator(mode="after")
    def _one(self) -> ProblemsOptions:
        if (self.arithmetic is None) == (self.path is None):
            raise ValueError("give one of arithmetic and path")
        return self


class Problems(Stage[ProblemsOptions]):
    """Goes stale when a file that is read changes."""

    kind, version, Options = "problems", 1, ProblemsOptions

    def fingerprint(self, options: ProblemsOptions, base: Path) -> Any:
        paths = [base / Path(p).expanduser() for p in (options.path, options.validation_path) if p is not None]
        return {str(path): file_digest(path) if path.is_file() else None for path in paths}

    def run(self, ctx: Context[ProblemsOptions]) -> dict[str, Any]:
        from itertools import islice

        from norma.text.problems import arithmetic, texts
        from norma.text.split import split

        options = ctx.options
        if options.arithmetic is not None:
            asked = options.arithmetic
            how: dict[str, Any] = {"seed": ctx.seed, "chinese_share": asked.chinese_share, "working": asked.working}
            made = arithmetic(asked.operations, asked.smallest, asked.largest, **how)
            found = list(islice(made, asked.count))
        else:
            assert options.path is not None
            found = _read(ctx, options.path)
        sides: dict[str, list[dict[str, Any]]] = {"train": [], "validation": []}
        for row in found:
            held_out = options.validation_path is None and split(row["id"], ctx.seed, options.validation_share) == "validation"
            sides["validation" if held_out else "train"].append(row)
        if options.validation_path is not None:
            sides["validation"] = _read(ctx, options.validation_path)
        for side, rows in sides.items():
            if not rows:
                raise NormaError(f"no problem is left for {side}", where=ctx.name, mend="Take more problems, or another validation_share")
            write_jsonl(ctx.folder / f"qa.{side}.jsonl", rows)
            write_jsonl(ctx.folder / f"text.{side}.jsonl", texts(rows))
        if options.examples is not None:
            write_jsonl(ctx.folder / "examples.train.jsonl", sides["train"][: options.examples])
        first = sides["train"][0]["messages"]
        ctx.progress.say(f"{len(sides['train']):,} problems to train on, {len(sides['validation']):,} held out")
        ctx.progress.say(f"the first: {first[0]['content']!r} → {first[1]['content']!r}")
        return {"train": len(sides["train"]), "validation": len(sides["validation"])}


def _read(ctx: Context[ProblemsOptions], path: str) -> list[dict[str, Any]]:
    from norma.text.problems import word_problem
    from norma.text.quarantine import Quarantine
    from norma.text.readers import read

    rows: list[dict[str, Any]] = []
    file = ctx.outside(path)
    with Quarantine(ctx.folder / f"quarantine.{file.name.split('.')[0]}.jsonl") as quarantine:
        for record in read(file, quarantine):
            made = word_problem(record.fields, f"{file.name.split('.')[0]}:{record.line}")
            if isinstance(made, str):
                quarantine.add(record.file, record.line, made)
            else:
                rows.append(made)
    if not rows:
        raise NormaError("no problem in it has a question and an answer that ends with '#### 18'", where=file, mend="See GSM8K's layout")
    if len(quarantine):
        ctx.progress.say(f"{len(quarantine)} rows of {file.name} were set aside")
    return rows
