"""Score stage: what pretrained models know of a language, side by side.

models ─→ bits per byte (left), nats a masked token (both sides), minimal pairs (either) ─→ scores.json, table
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from norma.base.files import read_json, write_json
from norma.base.hashing import file_digest
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._learning import open_model, prepare, validation_texts

if TYPE_CHECKING:
    import torch

    from norma.evaluate.minimal_pairs import Pair, Way
    from norma.lm import LanguageModel


class Scored(BaseModel):
    """One line of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: InputRef = Field(description="The stage that trained it.")
    name: str | None = Field(None, description="What the table calls it; by default the stage's name.")
    ways: list[Literal["left", "both"]] | None = Field(
        None, description="left: each token from those before it; both: hidden tokens from both sides. By default what the shape can do."
    )


class ScoreOptions(StageOptions):
    """Options of a ``score`` stage."""

    models: list[Scored] = Field(min_length=1, description="What is compared.")
    text: InputRef = Field("clean/text.validation.jsonl", description="Held-out text rows.")
    text_bytes: int = Field(300_000, ge=1000, description="How much of it.")
    length: int = Field(256, ge=16, description="Tokens that are read together.")
    pairs: str | None = Field(None, description="File of minimal pairs {good, bad, uid}, as BLiMP's; a relative path starts at the recipe.")
    pairs_each: int | None = Field(None, ge=1, description="Pairs of each phenomenon, drawn by the seed; by default all.")


class Score(Stage[ScoreOptions]):
    """Each model is scored once, and its numbers are kept: a killed run goes on with the next."""

    kind, version, Options = "score", 1, ScoreOptions

    def fingerprint(self, options: ScoreOptions, base: Any) -> Any:
        from norma.text.readers import files_of

        if options.pairs is None:
            return {}
        return {name: file_digest(path) for path, name in files_of((base / options.pairs).expanduser())}

    def run(self, ctx: Context[ScoreOptions]) -> dict[str, Any]:
        from norma.evaluate.minimal_pairs import read_pairs

        options = ctx.options
        dtype = prepare(ctx)
        texts = validation_texts(ctx.path(options.text), options.text_bytes)
        pairs = read_pairs(ctx.outside(options.pairs), count=options.pairs_each, seed=ctx.seed) if options.pairs else []
        rows = []
        for number, line in enumerate(options.models, 1):
            path = ctx.folder / "models" / f"{number:02}.json"
            if not path.exists():
                write_json(path, _score(ctx, line, texts, pairs, dtype))
            rows.append(read_json(path))
            ctx.progress.update(number, len(options.models))
        write_json(ctx.folder / "scores.json", {"models": rows, "pairs": len(pairs)})
        return {"table": _table(rows), "models": [{k: v for k, v in row.items() if k != "pairs"} for row in rows]}


def _score(ctx: Context[ScoreOptions], line: Scored, texts: list[str], pairs: list[Pair], dtype: torch.dtype) -> dict[str, Any]:
    from norma.evaluate.likelihood import bits_per_byte, masked_nats
    from norma.evaluate.minimal_pairs import ways_of

    model, options = open_model(ctx, line.model), ctx.options
    ways: list[Way] = list(line.ways or ways_of(model))
    row: dict[str, Any] = {"name": line.name or line.model, "parameters": model.config.parameters()}
    row |= {key: model.lineage[key] for key in ("steps", "flops") if key in model.lineage}
    if "left" in ways:
        row["bits_per_byte"] = bits_per_byte(model, texts, length=options.length, dtype=dtype)
    if "both" in ways and model.config.kind != "encoder-decoder":
        row["masked_nats"] = masked_nats(model, texts, length=options.length, dtype=dtype)
    if pairs:
        row["pairs"] = {way: _minimal(model, pairs, way, dtype) for way in ways}
    ctx.progress.say(", ".join(f"{k} {v}" for k, v in row.items() if k != "pairs"))
    return row


def _minimal(model: LanguageModel, pairs: list[Pair], way: Way, dtype: torch.dtype) -> dict[str, Any]:
    """Accuracy over all pairs, with the interval over phenomena, and of each field and phenomenon."""
    import numpy as np

    from norma.evaluate.minimal_pairs import accuracy, sentence_nats
    from norma.evaluate.statistics import clustered_rate

    good, bad = (sentence_nats(model, [getattr(p, side) for p in pairs], way, dtype=dtype) for side in ("good", "bad"))
    right = accuracy(good, bad)
    rate = clustered_rate(right.tolist(), [p.phenomenon for p in pairs])
    parts: dict[str, dict[str, float]] = {}
    for part in ("field", "phenomenon"):
        names = np.array([getattr(p, part) for p in pairs])
        parts[part] = {str(name): float(right[names == name].mean()) for name in np.unique(names)}
    whole = {"accuracy": rate.rate, "low": rate.low, "high": rate.high, "n": rate.n}
    return {**whole, "fields": parts["field"], "phenomena": parts["phenomenon"]}


def _table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    ways = [way for way in ("left", "both") if any(way in row.get("pairs", {}) for row in rows)]
    heads = {"left": "pairs, left %", "both": "pairs, both %"}

    def cell(row: dict[str, Any], key: str, form: str) -> str:
        return format(row[key], form) if key in row else ""

    def pairs(row: dict[str, Any], way: str) -> str:
        found = row.get("pairs", {}).get(way)
        return f"{100 * found['accuracy']:.1f} ({100 * found['low']:.0f}–{100 * found['high']:.0f})" if found else ""

    lines = [
        [row["name"], f"{row['parameters'] / 1e6:.2f}", cell(row, "bits_per_byte", ".3f"), cell(row, "masked_nats", ".3f")]
        + [pairs(row, way) for way in ways]
        for row in rows
    ]
    columns = ["model", "M weights", "bits/byte", "masked nats", *(heads[way] for way in ways)]
    return {"title": "What models know of the language", "columns": columns, "rows": lines}
