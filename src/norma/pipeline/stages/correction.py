"""Correction stage: supervised correction (有监督纠正). Sample, mark each rule, correct, train corrected over original.

questions ─→ answers ─→ marks in labels.sqlite (annotator checker:...) ─┬─→ pairs.train.jsonl, norm_rows.jsonl ─┬─→ model
people's label store ─→ their marks and corrections, beside or before ──┴─→ marks.train.jsonl ──────────────────┘
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from norma.align.preference_options import METHODS, Method, PairOptions
from norma.base.errors import NormaError
from norma.base.files import write_jsonl
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._learning import AdaptOptions, AnswerOptions, adapted, answering, open_model, prepare, save_model
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    from norma.align.marked import MarkedAnswers
    from norma.lm import LanguageModel

PAIRS, MARKS, DOMINANCE = "pairs.train.jsonl", "marks.train.jsonl", "dominance.train.jsonl"


class CorrectionOptions(AnswerOptions, AdaptOptions, StageOptions):
    """Options of a ``correction`` stage."""

    from_: InputRef = Field(alias="from", description="The stage whose model is sampled and trained.")
    questions: InputRef = Field("corpus/qa.train.jsonl", description="Questions to answer; references are not looked at.")
    count: int = Field(1000, ge=1, description="How many questions.")
    answers: int = Field(2, ge=1, description="Answers to each.")
    temperature: float = Field(0.8, gt=0, description="Of sampling.")
    max_new_tokens: int = Field(48, ge=1, description="Longest answer in tokens.")
    labels: str | None = Field(
        None, description="A label store of people (path or URL): their marks come before the checkers', their corrections make pairs too."
    )
    method: Method = Field(
        "dpo",
        description="On pairs, corrected over original: dpo, cdpo, ipo, orpo, simpo, or sft on the corrected answers; on the marks of every"
        " answer: kto, unlikelihood, weighted (by R).",
    )
    epochs: float = Field(2.0, gt=0, description="Passes over the pairs or marks.")
    pairs: PairOptions = Field(default_factory=PairOptions, description="How the pairs or marks are trained.")
    train: TrainOptions = Field(
        default_factory=lambda: TrainOptions(optimiser="adamw", learning_rate=2e-4, weight_decay=0.0, schedule="cosine", warmup=5),
        description="Optimiser and schedule.",
    )


class Correction(Stage[CorrectionOptions]):
    """Marks the model's own answers, corrects them, and trains corrected over original."""

    kind, version, parallel, Options = "correction", 2, True, CorrectionOptions
    uses_spec = True

    def fingerprint(self, options: CorrectionOptions, base: Path) -> Any:
        from norma.pipeline.stages.pairs import marks_digest

        return {options.labels: marks_digest(options.labels, base)} if options.labels else {}

    def run(self, ctx: Context[CorrectionOptions]) -> dict[str, Any]:
        from norma.align.compared import read_rows
        from norma.align.preference import PreferenceTraining, Settings
        from norma.pipeline.stages.preference import learn, show_first

        options = ctx.options
        dtype = prepare(ctx)
        model = answering(ctx, adapted(ctx, open_model(ctx, options.from_)))
        if ctx.ranks.first and not (ctx.folder / PAIRS).exists():
            _collect(ctx, model)
        ctx.ranks.wait()  # of several processes the first samples and marks; all learn what it has written
        on_pairs = METHODS[options.method].paired or options.method == "sft"
        few = (ctx.folder / DOMINANCE).exists()
        path = ctx.folder / (PAIRS if on_pairs else DOMINANCE if few else MARKS)
        if not path.read_text(encoding="utf-8").strip():
            what = "no answer could be corrected" if on_pairs else "no answer could be marked"
            raise NormaError(what, where=ctx.folder, mend="Train the model before longer, or raise 'count'")
        read = read_rows(path, model.tokenizer, model.config)
        show_first(ctx, model, read)
        settings = Settings.of(options.method, options.pairs, likelihood=1.0 if METHODS[options.method].paired else None)
        said: dict[str, Any] = {"seed": ctx.seed, "dtype": dtype, "folder": ctx.folder, "ranks": ctx.ranks}
        training = PreferenceTraining(model, read.rows, settings, options.pairs, **said)
        steps = training.steps(options.epochs)
        last = learn(ctx, model, training, steps)
        if not ctx.ranks.first:
            return {}
        save_model(ctx, model, method=options.method)
        numbers = {"pairs": len(read.rows), "steps": steps, "pairs_correct": last.get("pairs_correct")}
        return {"model": True, "method": options.method, **numbers}


def _collect(ctx: Context[CorrectionOptions], model: LanguageModel) -> None:
    """Sample and mark; write the label store, the pairs, the marks and the corrected rows (the pairs last: then all are there)."""
    from norma.align.correction import collect
    from norma.align.marked import conversation_row, corrected_pairs, mark_rows, marked_answers, pair_row
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
        people = _people(ctx, store) if options.labels else []
        frozen = store.export(ctx.folder / "labels.jsonl")
        labels, known = store.rows(current=True), store.items()
    ctx.progress.say(
        f"{len(collected.labels)} marks (labels.jsonl, {frozen.digest[:12]});"
        f" {collected.compliant} of {collected.answers} answers kept every rule;"
        f" {len(collected.pairs)} pairs, {collected.uncorrected} answers that no program could correct (left for people)"
    )
    theirs, why = corrected_pairs(people, known, spec)
    if people:
        refused = "".join(f"; {count} refused: {reason}" for reason, count in why.most_common())
        ctx.progress.say(f"{len(people)} marks of people, {len(theirs)} corrections{refused}")
    found = marked_answers(labels, known, spec)
    marks = mark_rows(found, collected.rewards, collected.unfinished)
    corrected = [conversation_row(p.item, p.chosen) for p in collected.pairs]
    write_jsonl(ctx.folder / "norm_rows.jsonl", [*corrected, *(conversation_row(known[row["id"]], row["chosen"]) for row in theirs)])
    write_jsonl(ctx.folder / MARKS, marks)
    pairs = [*(pair_row(p.item, p.chosen, p.rejected) | {"marked_by": "checker"} for p in collected.pairs), *theirs]
    _dominance(ctx, found, pairs, marks)
    write_jsonl(ctx.folder / PAIRS, pairs)


def _people(ctx: Context[CorrectionOptions], store: Any) -> list[Any]:
    """People's marks and the inputs they are of, put beside the checkers'."""
    from norma.labels import LabelStore

    place = ctx.options.labels or ""
    path = None if "://" in place else ctx.outside(place)
    if path is not None and not path.is_file():
        raise NormaError("there is no label store", where=path, mend="Make one with 'norma label import', or leave 'labels:' out")
    with LabelStore(path or place) as theirs:
        labels = theirs.rows()
        store.add_items(theirs.items().values())
        store.add(labels)
        return [label for label in theirs.rows(current=True) if label.source == "human"]


def _dominance(ctx: Context[CorrectionOptions], found: MarkedAnswers, pairs: list[dict[str, Any]], marks: list[dict[str, Any]]) -> None:
    """Where hardly an answer keeps every rule, pairs of which one keeps more than the other stand in for the marks."""
    from norma.align.marked import FEWEST_DESIRABLE, dominance_pairs

    share = sum(row["desirable"] for row in marks) / max(1, len(marks))
    if share >= FEWEST_DESIRABLE or METHODS[ctx.options.method].paired or ctx.options.method == "sft":
        return
    over = dominance_pairs(found)
    ctx.progress.say(f"{share:.0%} of the marked answers are desirable: {len(over)} dominance pairs and {len(pairs)} corrections instead")
    write_jsonl(ctx.folder / DOMINANCE, [*over, *pairs])
