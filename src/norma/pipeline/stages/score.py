"""Score stage: what pretrained models know of a language, side by side.

models ─→ bits per byte (left), nats a masked token (both sides), minimal pairs (either), sentences that keep the norms
       ─→ scores.json, table
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from norma.base.files import read_json, write_json
from norma.base.hashing import file_digest
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._learning import open_model, prepare, validation_texts
from norma.spec import Role

if TYPE_CHECKING:
    import torch

    from norma.evaluate.minimal_pairs import Pair, Way
    from norma.lm import LanguageModel


ROLES: tuple[Role, ...] = ("report", "heldout")


class Scored(BaseModel):
    """One line of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: InputRef = Field(description="The stage that trained it.")
    name: str | None = Field(None, description="What the table calls it; by default the stage's name.")
    control: bool = Field(False, description="Let it write behind <|good|> (a rate stage with control: true).")
    shards: InputRef | None = Field(
        None, description="Held-out token shards to measure bits per byte on instead of text: with control tokens, which are paid for."
    )
    ways: list[Literal["left", "both"]] | None = Field(
        None, description="left: each token from those before it; both: hidden tokens from both sides. By default what the shape can do."
    )


class ContinuationOptions(BaseModel):
    """Texts that models write by themselves, judged by the spec sentence by sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(300, ge=1, description="Held-out texts that are continued.")
    read: int = Field(16, ge=1, description="Tokens of each that are given.")
    tokens: int = Field(96, ge=8, description="Tokens that are written at most.")
    temperature: float = Field(0.7, ge=0, description="Of sampling (0.7 in 2302.08582).")


class ScoreOptions(StageOptions):
    """Options of a ``score`` stage."""

    models: list[Scored] = Field(min_length=1, description="What is compared.")
    text: InputRef = Field("clean/text.validation.jsonl", description="Held-out text rows.")
    text_bytes: int = Field(300_000, ge=1000, description="How much of it.")
    length: int = Field(256, ge=16, description="Tokens that are read together.")
    window: int | None = Field(
        None, ge=2, description="Also nats a token (of characters: a character) of the text as one stream, in windows of so many tokens."
    )
    continuations: ContinuationOptions | None = Field(None, description="Judge what the models write; needs a spec.")
    pairs: str | None = Field(None, description="File of minimal pairs {good, bad, uid}, as BLiMP's; a relative path starts at the recipe.")
    pairs_each: int | None = Field(None, ge=1, description="Pairs of each phenomenon, drawn by the seed; by default all.")


class Score(Stage[ScoreOptions]):
    """Each model is scored once, and its numbers are kept: a killed run goes on with the next."""

    kind, version, Options = "score", 1, ScoreOptions
    uses_spec = True

    def spec_use(self, options: ScoreOptions) -> bool | tuple[str, ...]:
        return options.continuations is not None

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
        return {"table": _table(rows), "models": [{k: v for k, v in row.items() if not isinstance(v, (dict, list))} for row in rows]}


def _score(ctx: Context[ScoreOptions], line: Scored, texts: list[str], pairs: list[Pair], dtype: torch.dtype) -> dict[str, Any]:
    from norma.evaluate.likelihood import bits_per_byte, masked_nats, shard_bits
    from norma.evaluate.minimal_pairs import ways_of
    from norma.text.shards import Shards

    model, options = open_model(ctx, line.model), ctx.options
    ways: list[Way] = list(line.ways or ways_of(model))
    row: dict[str, Any] = {"name": line.name or line.model, "parameters": model.config.parameters()}
    row |= {key: model.lineage[key] for key in ("steps", "flops") if key in model.lineage}
    if "left" in ways:
        how: dict[str, Any] = {"length": options.length, "dtype": dtype}
        held = None if line.shards is None else Shards(ctx.path(line.shards))
        row["bits_per_byte"] = bits_per_byte(model, texts, **how) if held is None else shard_bits(model, held, **how)
        if options.window is not None:
            row |= _windows(model, texts, options.window, dtype)
    if "both" in ways and model.config.kind != "encoder-decoder":
        row["masked_nats"] = masked_nats(model, texts, length=options.length, dtype=dtype)
    if pairs:
        row["pairs"] = {way: _minimal(model, pairs, way, dtype) for way in ways}
    if options.continuations is not None:
        row |= _written(ctx, model, line, options.continuations)
    ctx.progress.say(", ".join(f"{k} {v}" for k, v in row.items() if not isinstance(v, (dict, list))))
    return row


def _windows(model: LanguageModel, texts: list[str], length: int, dtype: torch.dtype) -> dict[str, float]:
    """Nats a token with windows end to end, and with windows that move on by an eighth."""
    from norma.evaluate.likelihood import window_nats

    strides = {"nats": length, "nats_sliding": max(1, length // 8)}
    return {name: window_nats(model, texts, length=length, stride=stride, dtype=dtype) for name, stride in strides.items()}


def _written(ctx: Context[ScoreOptions], model: LanguageModel, line: Scored, how: ContinuationOptions) -> dict[str, Any]:
    """Rates of sentences that keep the norms: by the report's checkers, and by those that training never saw."""
    from norma.evaluate.continuations import continuations, kept

    spec = ctx.need_spec()
    texts = validation_texts(ctx.path(ctx.options.text), 1 << 40)[: how.count]
    settings: dict[str, Any] = {"read": how.read, "tokens": how.tokens, "temperature": how.temperature, "seed": ctx.seed}
    written = continuations(model, texts, control=line.control, **settings)
    shown = [" ".join(one.sentences) for one in written[:5]]
    return {"kept": {role: kept(spec, written, role) for role in ROLES}, "written": shown}


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
    """A column for each number that some model has."""

    def share(found: dict[str, Any] | None, key: str) -> str:
        if not found or found[key] is None:
            return ""
        return f"{100 * found[key]:.1f} ({100 * found['low']:.0f}–{100 * found['high']:.0f})"

    def cell(row: dict[str, Any], key: str, form: str) -> str:
        return format(row[key], form) if key in row else ""

    columns: dict[str, list[str]] = {
        "model": [row["name"] for row in rows],
        "M weights": [f"{row['parameters'] / 1e6:.2f}" for row in rows],
        "bits/byte": [cell(row, "bits_per_byte", ".3f") for row in rows],
        "nats/token": [cell(row, "nats", ".4f") for row in rows],
        "sliding": [cell(row, "nats_sliding", ".4f") for row in rows],
        "masked nats": [cell(row, "masked_nats", ".3f") for row in rows],
        "pairs, left %": [share(row.get("pairs", {}).get("left"), "accuracy") for row in rows],
        "pairs, both %": [share(row.get("pairs", {}).get("both"), "accuracy") for row in rows],
        "keeps the norms %": [share(row.get("kept", {}).get("report"), "rate") for row in rows],
        "second opinion %": [share(row.get("kept", {}).get("heldout"), "rate") for row in rows],
    }
    shown = {name: cells for name, cells in columns.items() if any(cells)}
    lines = [list(line) for line in zip(*shown.values(), strict=True)]
    return {"title": "What models know of the language", "columns": list(shown), "rows": lines}
