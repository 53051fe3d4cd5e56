"""Correction stage: supervised correction (有监督纠正). Sample, mark each rule, correct, train corrected over original.

questions ─→ answers ─→ marks in labels.sqlite (annotator checker:...) ─→ pairs.jsonl + norm_rows.jsonl ─→ model
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from norma.align.options import PairOptions
from norma.base.errors import NormaError
from norma.base.files import read_jsonl, write_jsonl
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._learning import open_model, prepare, save_model
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    from norma.align.correction import Pair
    from norma.lm import LanguageModel


class CorrectionOptions(StageOptions):
    """Options of a ``correction`` stage."""

    from_: InputRef = Field(alias="from", description="The stage whose model is sampled and trained.")
    questions: InputRef = Field("corpus/qa.train.jsonl", description="Questions to answer; references are not looked at.")
    count: int = Field(1000, ge=1, description="How many questions.")
    answers: int = Field(2, ge=1, description="Answers to each.")
    temperature: float = Field(0.8, gt=0, description="Of sampling.")
    max_new_tokens: int = Field(48, ge=1, description="Longest answer in tokens.")
    epochs: float = Field(2.0, gt=0, description="Passes over the pairs.")
    pairs: PairOptions = Field(default_factory=PairOptions, description="How the pairs are trained.")
    train: TrainOptions = Field(
        default_factory=lambda: TrainOptions(optimiser="adamw", learning_rate=2e-4, weight_decay=0.0, schedule="cosine", warmup=5),
        description="Optimiser and schedule.",
    )


class Correction(Stage[CorrectionOptions]):
    """Marks the model's own answers, corrects them, and trains corrected over original."""

    kind, version, Options = "correction", 1, CorrectionOptions
    uses_spec = True

    def run(self, ctx: Context[CorrectionOptions]) -> dict[str, Any]:
        from norma.align.correction import Pair, PairTraining
        from norma.align.rows import to_item
        from norma.train import train

        options = ctx.options
        dtype = prepare(ctx)
        model = open_model(ctx, options.from_)
        if not (ctx.folder / "pairs.jsonl").exists():
            _collect(ctx, model)
        rows = read_jsonl(ctx.folder / "pairs.jsonl")
        if not rows:
            raise NormaError("no answer could be corrected", where=ctx.folder, mend="Train the model before longer, or raise 'count'")
        pairs = [Pair(to_item(r), r["chosen"], r["rejected"]) for r in rows]
        training = PairTraining(model, pairs, options.pairs, seed=ctx.seed, dtype=dtype)
        steps = max(1, round(options.epochs * len(training.groups) / options.pairs.pairs))
        last = train(model.transformer, training.losses, steps=steps, options=options.train, folder=ctx.folder, progress=ctx.progress)
        save_model(ctx, model)
        return {"model": True, "pairs": len(pairs), "steps": steps, "pairs_correct": last.get("pairs_correct")}


def _collect(ctx: Context[CorrectionOptions], model: LanguageModel) -> None:
    """Sample and mark; write the label store, the pairs and the corrected rows."""
    from norma.align.correction import collect
    from norma.align.rows import choose, read_items
    from norma.generate import Sampling
    from norma.labels import LabelStore

    options, spec = ctx.options, ctx.need_spec()
    items = choose(read_items(ctx.path(options.questions)), options.count, ctx.seed)
    sampling = Sampling(options.max_new_tokens, options.temperature, seed=ctx.seed)
    ctx.progress.say(f"sampling {len(items)} x {options.answers} answers and marking them by {len(spec.rules)} rules")
    collected = collect(model, spec, items, sampling, each=options.answers)
    with LabelStore(ctx.folder / "labels.sqlite") as store:
        store.add_items(items)
        store.add(collected.labels)
        frozen = store.export(ctx.folder / "labels.jsonl")
    ctx.progress.say(
        f"{len(collected.labels)} marks (labels.jsonl, {frozen.digest[:12]});"
        f" {collected.compliant} of {collected.answers} answers kept every rule;"
        f" {len(collected.pairs)} pairs, {collected.uncorrected} answers that no program could correct (left for people)"
    )
    write_jsonl(ctx.folder / "norm_rows.jsonl", (_row(p, "messages") for p in collected.pairs))
    write_jsonl(ctx.folder / "pairs.jsonl", (_row(p, "pair") for p in collected.pairs))


def _row(pair: Pair, shape: str) -> dict[str, Any]:
    """A pair as a record: the question row with the corrected answer, and beside it what it was corrected from."""
    item = pair.item
    row = {
        "id": item.id,
        "source": item.source,
        "language": item.language,
        "messages": [*map(dict, item.messages), {"role": "assistant", "content": pair.chosen}],
        "facts": dict(item.facts),
    }
    return row if shape == "messages" else row | {"chosen": pair.chosen, "rejected": pair.rejected}
