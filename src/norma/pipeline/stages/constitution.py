"""Constitution stage: the model's own answers, criticised and revised under the spec's rules, are learnt; then its answers are compared.

questions ─→ answers ─→ critiques and revisions (revisions.jsonl) ─→ conversations.*.jsonl ─→ the model, trained on them
         └─→ two answers each, by the trained model ─→ which keeps a rule better? (comparisons.jsonl) ─→ pairs.*.jsonl
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from norma.base.errors import NormaError
from norma.base.files import read_jsonl, write_jsonl
from norma.base.ranks import ALONE
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._fitting import fit
from norma.pipeline.stages._learning import AdaptOptions, AnswerOptions, adapted, answering, open_model, prepare, save_model
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    import torch

    from norma.align.authors import Author
    from norma.align.constitution import Draft
    from norma.lm import LanguageModel
    from norma.spec import Item


class FeedbackOptions(BaseModel):
    """Who criticises, or judges."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    by: Literal["model", "checkers", "endpoint"] = Field(
        "model", description="model; checkers: what the spec's own find, mended by program; endpoint: a model behind a server."
    )
    model: InputRef | None = Field(None, description="model: the stage whose model it is; by default the one that the stage begins from.")
    url: str | None = Field(None, description="endpoint: address of an OpenAI-compatible server.")
    name: str | None = Field(None, description="endpoint: the model's name there.")
    key_env: str | None = Field(
        None, description="endpoint: environment variable that holds the key; by default OPENAI_API_KEY if it is set."
    )
    temperature: float = Field(0.7, ge=0, description="Of critiques and revisions; choices between two answers are not sampled.")
    max_new_tokens: int = Field(96, ge=1, description="Longest critique or revision in tokens.")

    @model_validator(mode="after")
    def _reached(self) -> Self:
        if self.by == "endpoint" and not (self.url and self.name):
            raise ValueError("by: endpoint needs url and name")
        if self.by != "endpoint" and (self.url or self.name):
            raise ValueError("url and name are for by: endpoint")
        return self


class ReviseOptions(BaseModel):
    """Critique, revision, supervised fine-tuning."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    count: int = Field(1000, ge=0, description="Questions whose answers are revised; 0: nothing is revised or learnt.")
    rounds: int = Field(2, ge=1, description="Critiques of each answer, each under another drawn rule.")
    critic: FeedbackOptions = Field(default_factory=FeedbackOptions, description="Who criticises and revises.")
    verify: bool = Field(
        True, description="A model's revision stands only if the train checkers find the drawn rule kept and no other broken by it."
    )
    max_edit_ratio: float = Field(1.0, gt=0, le=1, description="checkers: the largest share of an answer that they may change.")
    epochs: float = Field(2.0, gt=0, description="Passes over the revised conversations.")
    batch: int = Field(16, ge=1, description="Conversations a step.")


class CompareOptions(BaseModel):
    """AI comparisons."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    count: int = Field(1000, ge=0, description="Questions whose two answers are compared; 0: nothing is compared.")
    judge: FeedbackOptions = Field(default_factory=FeedbackOptions, description="Who judges.")
    draws: int = Field(1, ge=1, description="Rules that are drawn for a pair at most, until one tells the answers apart.")
    least: float = Field(0.0, ge=0, lt=0.5, description="How far from a half P(better) must be for a pair; the two orders are averaged.")


class ConstitutionOptions(AnswerOptions, AdaptOptions, StageOptions):
    """Options of a ``constitution`` stage."""

    from_: InputRef = Field(alias="from", description="The stage whose model answers, and is trained.")
    questions: InputRef = Field("corpus/qa.train.jsonl", description="Questions to answer; references are not looked at.")
    temperature: float = Field(1.0, gt=0, description="Of sampling answers.")
    max_new_tokens: int = Field(48, ge=1, description="Longest answer in tokens; one that is cut off is not used.")
    revise: ReviseOptions = Field(default_factory=ReviseOptions, description="Critique, revision, and learning from it.")
    compare: CompareOptions = Field(default_factory=CompareOptions, description="Comparisons by the trained model's two answers.")
    validation_share: float = Field(0.1, ge=0, lt=1, description="Share of the sources whose conversations and pairs are held out.")
    micro_tokens: int = Field(4096, ge=256, description="Padded tokens of a micro-batch.")
    train: TrainOptions = Field(
        default_factory=lambda: TrainOptions(optimiser="adamw", learning_rate=3e-4, weight_decay=0.0, schedule="cosine", warmup=5),
        description="Optimiser and schedule.",
    )


class ConstitutionStage(Stage[ConstitutionOptions]):
    """Revises and learns, then compares: SL-CAI and the pairs of RL-CAI."""

    kind, version, parallel, Options = "constitution", 1, True, ConstitutionOptions
    uses_spec = True

    def run(self, ctx: Context[ConstitutionOptions]) -> dict[str, Any]:
        from norma.generate import load

        options, dtype = ctx.options, prepare(ctx)
        summary: dict[str, Any] = {"model": True}
        if not ctx.ranks.tell((ctx.folder / "norma.json").exists()):  # written last: else an earlier run was killed while it compared
            model = answering(ctx, adapted(ctx, open_model(ctx, options.from_)))
            if options.revise.count:
                _learn(ctx, model, dtype)
            if ctx.ranks.first:
                save_model(ctx, model)
        if not ctx.ranks.first:  # what is left is no training: the first process does it
            return {}
        if options.revise.count:
            summary |= _revision_counts(ctx)
        if options.compare.count:
            if not (ctx.folder / "comparisons.jsonl").exists():
                write_jsonl(ctx.folder / "comparisons.jsonl", _compare(ctx, answering(ctx, load(ctx.folder), "after", ALONE), dtype))
            summary |= _pairs(ctx)
        return summary


# ── critique and revision ──
def _learn(ctx: Context[ConstitutionOptions], model: LanguageModel, dtype: torch.dtype) -> None:
    from norma.align.answers import AnswerTraining, written

    options = ctx.options
    if ctx.ranks.first and not (ctx.folder / "conversations.train.jsonl").exists():  # the last of the files that revising writes
        _revise(ctx, model, dtype)
    rows = ctx.ranks.tell(read_jsonl(ctx.folder / "conversations.train.jsonl") if ctx.ranks.first else [])
    if not rows:
        mend = "Let critic: {by: checkers} mend them, or train the model before for longer"
        raise NormaError("no answer was revised, and none kept every rule", where=ctx.folder / "revisions.jsonl", mend=mend)
    groups = [written(model, row["messages"][:-1], row["messages"][-1]["content"]) for row in rows]
    training = AnswerTraining(model, groups, size=options.revise.batch, micro_tokens=options.micro_tokens, seed=ctx.seed, dtype=dtype)
    steps = training.steps(options.revise.epochs)
    ctx.progress.say(f"{steps} steps of {training.size} conversations")
    fit(ctx, model, training.losses, steps=steps)


def _revise(ctx: Context[ConstitutionOptions], model: LanguageModel, dtype: torch.dtype) -> None:
    """Write revisions.jsonl and the conversations."""
    from norma.align.constitution import Draft, conversation, learnable, revise

    options, spec = ctx.options, ctx.need_spec()
    answers = _answers(ctx, model, options.revise.count, each=1, use=0)
    drafts = [Draft(item, group[0]) for item, group in answers if group]
    critic = _author(ctx, options.revise.critic, dtype)
    for number in range(1, options.revise.rounds + 1):
        how: dict[str, Any] = {"verify": options.revise.verify, "max_edit_ratio": options.revise.max_edit_ratio}
        revise(spec, drafts, critic, number, seed=ctx.seed, **how)
        ctx.progress.update(number, options.revise.rounds)
    write_jsonl(ctx.folder / "revisions.jsonl", (row for draft in drafts for row in draft.journal))
    kept: list[Draft] = [draft for draft in drafts if learnable(spec, draft)]
    ctx.progress.say(
        f"{len(answers)} answers, {len(answers) - len(drafts)} of them cut off; {sum(d.revised for d in drafts)} revised;"
        f" {len(kept)} are learnt, {len(drafts) - len(kept)} were neither revised nor right (left out)"
    )
    _write_sides(ctx, "conversations", [conversation(draft) for draft in kept])


def _revision_counts(ctx: Context[ConstitutionOptions]) -> dict[str, Any]:
    rows = read_jsonl(ctx.folder / "revisions.jsonl")
    learnt = len(read_jsonl(ctx.folder / "conversations.train.jsonl"))
    return {"critiques": len(rows), "revisions": sum(row["accepted"] for row in rows), "conversations": learnt}


# ── comparisons ──
def _compare(ctx: Context[ConstitutionOptions], model: LanguageModel, dtype: torch.dtype) -> list[dict[str, Any]]:
    from norma.align.constitution import CHECKERS, author_judge, checkers_judge, compare

    options, spec = ctx.options, ctx.need_spec()
    answers = _answers(ctx, model, options.compare.count, each=2, use=1)
    pairs = [(item, *group) for item, group in answers if len(group) == 2]
    author = _author(ctx, options.compare.judge, dtype)
    judge = checkers_judge(spec) if author is None else author_judge(spec, author)
    ctx.progress.say(f"comparing two answers to each of {len(pairs)} questions; those to {len(answers) - len(pairs)} were cut off")
    name = CHECKERS if author is None else author.name
    return compare(spec, pairs, judge, name, draws=options.compare.draws, least=options.compare.least, seed=ctx.seed)  # type: ignore[arg-type]


def _pairs(ctx: Context[ConstitutionOptions]) -> dict[str, Any]:
    """Write the pairs, and count them."""
    from norma.align.constitution import contradictions, pair_rows

    rows = read_jsonl(ctx.folder / "comparisons.jsonl")
    pairs = list(pair_rows(rows))
    _write_sides(ctx, "pairs", pairs)
    against = contradictions(rows)
    ctx.progress.say(
        f"{len(rows)} comparisons, {len(pairs)} pairs"
        + ("" if against is None else f"; the judge chose otherwise in the other order in {against:.0%} of the comparisons")
    )
    return {"comparisons": len(rows), "pairs": len(pairs), "contradictions": against}


# ── shared ──
def _answers(ctx: Context[ConstitutionOptions], model: LanguageModel, count: int, *, each: int, use: int) -> list[tuple[Item, list[str]]]:
    """Questions with those of their answers that end. ``use``: 0 to revise, 1 to compare; each draws questions of its own."""
    import numpy as np

    from norma.align.answers import readable
    from norma.align.marks import sample
    from norma.align.rows import choose, read_items
    from norma.generate import Sampling

    options = ctx.options
    seed = int(np.random.SeedSequence([ctx.seed, use]).generate_state(1)[0])
    items = [i for i in read_items(ctx.path(options.questions)) if readable(model, i.messages, options.max_new_tokens)]
    items = choose(items, count, seed)
    if not items:
        raise NormaError("no question leaves room for an answer", where=ctx.path(options.questions), mend="Lower max_new_tokens")
    found = sample(model, items, [i.messages for i in items], Sampling(options.max_new_tokens, options.temperature, seed=seed), each=each)
    return [(item, [a.text for a in group if a.finish_reason == "stop"]) for item, group in zip(items, found, strict=True)]


def _author(ctx: Context[ConstitutionOptions], options: FeedbackOptions, dtype: torch.dtype) -> Author | None:
    """Who speaks; None: the checkers."""
    from norma.align.authors import EndpointAuthor, LocalAuthor
    from norma.base.endpoints import base_url
    from norma.check.judge_journal import Journal, default_place
    from norma.check.judge_models import Endpoint

    if options.by == "checkers":
        return None
    if options.by == "model":
        stage = options.model or ctx.options.from_
        return LocalAuthor(open_model(ctx, stage), f"model:{stage}", options.temperature, options.max_new_tokens, dtype)
    endpoint = Endpoint(base_url(options.url or ""), options.name or "", options.key_env, timeout=120.0, attempts=6)
    return EndpointAuthor(endpoint, Journal(default_place()), options.temperature, options.max_new_tokens)


def _write_sides(ctx: Context[ConstitutionOptions], name: str, rows: Sequence[dict[str, Any]]) -> None:
    """``name``.validation.jsonl and ``name``.train.jsonl, divided by source; the training side last."""
    from norma.text.split import split

    side = {row["source"]: split(row["source"], ctx.seed, ctx.options.validation_share, use=ctx.name) for row in rows}
    for which in ("validation", "train"):
        write_jsonl(ctx.folder / f"{name}.{which}.jsonl", (row for row in rows if side[row["source"]] == which))
