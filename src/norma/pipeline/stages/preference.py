"""Preference stage: pairs or marks of answers move a model (DPO and its relatives), or pairs that the model makes itself (online).

pairs.train.jsonl, marks.train.jsonl ─┐
questions ─→ answers ─→ spec or reward model ─┴─→ preference training ─→ model; reference.json, evaluation.json (before, after)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from norma.align.preference_options import METHODS, Method, OnlineOptions, PairOptions
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._fitting import fit
from norma.pipeline.stages._learning import AdaptOptions, AnswerOptions, adapted, answering, open_model, prepare, save_model, show_answers
from norma.train.options import TrainOptions

if TYPE_CHECKING:
    import torch

    from norma.align.compared import Read
    from norma.align.preference import PreferenceTraining, Settings
    from norma.lm import LanguageModel


class PreferenceOptions(AnswerOptions, AdaptOptions, StageOptions):
    """Options of a ``preference`` stage."""

    from_: InputRef = Field(alias="from", description="The stage whose model is trained, and to which the leash leads.")
    method: Method = Field(
        "dpo", description="On pairs: dpo, cdpo, ipo, orpo, simpo; on pairs or marks: kto, unlikelihood, weighted, sft (better answers)."
    )
    data: InputRef | None = Field(None, description="Pairs or marks of a stage, such as people/pairs.train.jsonl.")
    validation: InputRef | None = Field(None, description="Other rows of that kind, on which the model is measured before and after.")
    questions: InputRef | None = Field(None, description="Instead of data: questions that the model answers itself (online).")
    online: OnlineOptions = Field(default_factory=OnlineOptions, description="How it answers them.")
    reward_model: InputRef | None = Field(None, description="Online: the stage whose reward model says what is better; null: the spec.")
    longest: int | None = Field(None, ge=8, description="Most tokens of prompt and answer together; null: what the model reads.")
    too_long: Literal["leave_out", "cut_prompt"] = Field(
        "leave_out", description="Longer rows are left out, or lose the oldest tokens of their prompt."
    )
    epochs: float = Field(1.0, gt=0, description="Passes over the rows.")
    steps: int | None = Field(None, ge=1, description="Steps of the optimiser; goes before epochs.")
    pairs: PairOptions = Field(default_factory=PairOptions, description="How pairs and marks are trained.")
    train: TrainOptions = Field(
        default_factory=lambda: TrainOptions(optimiser="adamw", learning_rate=1e-4, weight_decay=0.0, schedule="cosine", warmup=5),
        description="Optimiser and schedule. Models of a billion weights and more want a rate of 5e-7 to 5e-6.",
    )

    @model_validator(mode="after")
    def _one(self) -> PreferenceOptions:
        if (self.data is None) == (self.questions is None):
            raise ValueError("give data (pairs or marks) or questions (online), one of them")
        if self.questions is not None and not METHODS[self.method].paired:
            raise ValueError(f"online, answers are compared: {self.method} is no method for pairs")
        if self.questions is not None and self.steps is None:
            raise ValueError("online, say how many steps")
        if self.reward_model is not None and self.questions is None:
            raise ValueError("reward_model judges answers to questions: give questions")
        if self.rollouts is not None and self.questions is None:
            raise ValueError("rollouts writes answers to questions: give questions")
        return self


class Preference(Stage[PreferenceOptions]):
    """Trains on comparisons."""

    kind, version, parallel, Options = "preference", 1, True, PreferenceOptions

    def spec_use(self, options: PreferenceOptions) -> bool | tuple[str, ...]:
        return options.questions is not None and options.reward_model is None

    def run(self, ctx: Context[PreferenceOptions]) -> dict[str, Any]:
        from norma.align.preference import Settings

        options = ctx.options
        dtype = prepare(ctx)
        model = adapted(ctx, open_model(ctx, options.from_))
        settings = Settings.of(options.method, options.pairs)
        return _online(ctx, model, settings, dtype) if options.questions is not None else _offline(ctx, model, settings, dtype)


def _offline(ctx: Context[PreferenceOptions], model: LanguageModel, settings: Settings, dtype: torch.dtype) -> dict[str, Any]:
    from norma.align.compared import read_rows, refuse_overlap
    from norma.align.preference import PreferenceTraining

    options = ctx.options
    how: dict[str, Any] = {"longest": options.longest, "cut": options.too_long == "cut_prompt"}
    path = ctx.path(options.data or "")
    read = read_rows(path, model.tokenizer, model.config, **how)
    said: dict[str, Any] = {"seed": ctx.seed, "dtype": dtype, "folder": ctx.folder, "ranks": ctx.ranks}
    held = None
    if options.validation is not None:
        held_path = ctx.path(options.validation)
        held_rows = read_rows(held_path, model.tokenizer, model.config, **how)
        refuse_overlap(read, held_rows, path, held_path)
        held = PreferenceTraining(model, held_rows.rows, settings, options.pairs, name="reference.validation.json", **said)
    training = PreferenceTraining(model, read.rows, settings, options.pairs, **said)
    show_first(ctx, model, read)
    steps = options.steps or training.steps(options.epochs)
    _table_of_sizes(ctx, read, training, steps)
    before = _measured(ctx, model, held, "before") if held is not None else None
    last = learn(ctx, model, training, steps)
    after = _measured(ctx, model, held, "after") if held is not None else None
    if not ctx.ranks.first:
        return {}
    save_model(ctx, model, method=options.method)
    summary: dict[str, Any] = {"model": True, "method": options.method, "rows": len(read.rows), "steps": steps}
    if before is None or after is None or held is None:
        return summary | {"pairs_correct": last.get("pairs_correct")}
    for question, once, now in zip(before["questions"], before["answers"], after["answers"], strict=True):
        ctx.progress.say(f"question  {question}\n  before  {once}\n  after   {now}")
    return summary | {"before": before, "after": after, "table": _table(options.method, before, after)}


def show_first(ctx: Context[Any], model: LanguageModel, read: Read) -> None:
    """The first row, coloured: what becomes likelier and what less likely."""
    row = read.rows[0]
    good, bad = (next((a for a, d in zip(row.group.answers, row.desirable, strict=True) if d is kind), ()) for kind in (True, False))
    show_answers(ctx, model.tokenizer, row.group.prompt, good, bad)


def learn(ctx: Context[Any], model: LanguageModel, training: PreferenceTraining, steps: int) -> dict[str, float]:
    """Train on this rank's share of every step, in micro-batches that the plan keeps."""
    training.micro_tokens = ctx.plan.choose("micro_tokens", lambda: training.micro_tokens)

    def shrink() -> str | None:
        done = training.shrink()
        if done is not None:
            ctx.plan.change("micro_tokens", training.micro_tokens)
        return done

    return fit(ctx, model, training.losses, steps=steps, shrink=shrink)


def _table_of_sizes(ctx: Context[PreferenceOptions], read: Read, training: PreferenceTraining, steps: int) -> None:
    """What a step is made of, in words."""
    groups = [row.group for row in read.rows]
    answers = sum(len(g.answers) for g in groups)
    tokens = sum(g.tokens() for g in groups)
    kind = "pairs" if all(row.paired for row in read.rows) else "marked answers"
    left = f"; {read.too_long} too long, left out" if read.too_long else ""
    cut = f"; {read.cut} prompts cut" if read.cut else ""
    processes = "one process" if ctx.ranks.count == 1 else f"{ctx.ranks.count} processes"
    ctx.progress.say(
        f"{len(groups):,} {kind} ({answers:,} answers, {tokens / len(groups):.0f} tokens a row){left}{cut}:"
        f" {steps} steps of {training.size} ({steps * training.size / len(groups):.2f} epochs,"
        f" micro-batches of {training.micro_tokens} tokens, {processes})"
    )


def _measured(ctx: Context[PreferenceOptions], model: LanguageModel, held: PreferenceTraining, when: str) -> dict[str, Any]:
    """The validation rows under the model as it is; written down, so that a run that goes on does not measure trained weights as before."""
    from norma.base.files import read_json, write_json
    from norma.evaluate.statistics import clustered_rate

    path = ctx.folder / f"evaluation.{when}.json"
    found = ctx.ranks.tell(read_json(path) if ctx.ranks.first and path.is_file() else None)
    if found is None:
        found = held.evaluate(ctx.ranks)
        by_row = found.pop("by_row", None)
        if by_row is not None:
            rate = clustered_rate(by_row, [row.source for row in held.rows])
            found |= {"low": rate.low, "high": rate.high}
        found |= _answers(model, held)
        if ctx.ranks.first:
            write_json(path, found)
    correct = found["pairs_correct"]
    ctx.progress.say(f"validation, {when}: " + ("one kind of marks only" if correct is None else f"{correct:.1%} of pairs in order"))
    return dict(found)


def _answers(model: LanguageModel, held: PreferenceTraining) -> dict[str, list[str]]:
    """What the model answers to some validation rows, drawn evenly: pairs in order say nothing of answers that have become fragments."""
    from norma.generate import Sampling, generate

    rows = [held.rows[i * len(held.rows) // ASKED] for i in range(min(ASKED, len(held.rows)))]
    prompts = [list(row.group.prompt) for row in rows]
    room = model.config.max_positions - max(map(len, prompts))
    answers = generate(model, prompts, Sampling(max(1, min(ANSWER, room)), temperature=0.0)) if room > 0 else []
    asked = [model.tokenizer.decode(prompt) for prompt in prompts[: len(answers)]]
    return {"questions": [" ".join(text.split()) for text in asked], "answers": [" ".join(answer.text.split()) for answer in answers]}


ASKED, ANSWER = 3, 48  # validation rows that are answered before and after, and their longest answer in tokens
_SHOWN = {
    "pairs_correct": "pairs in order, by implicit reward %",
    "likelier": "better answer likelier a token %",
    "loss": "loss",
    "chosen_reward": "reward of the better",
    "rejected_reward": "reward of the worse",
    "chosen_nats_per_token": "nats a token of the better",
    "rejected_nats_per_token": "nats a token of the worse",
}


def _table(method: str, before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Held-out rows before and after."""

    def cell(found: dict[str, Any], name: str) -> str:
        if found.get(name) is None:
            return ""
        if "%" not in _SHOWN[name]:
            return f"{found[name]:.4f}"
        interval = f" ({100 * found['low']:.1f}–{100 * found['high']:.1f})" if name == "pairs_correct" and "low" in found else ""
        return f"{100 * found[name]:.1f}{interval}"

    rows = [[title, cell(before, name), cell(after, name)] for name, title in _SHOWN.items() if before.get(name) is not None]
    return {"title": f"Held-out rows, {method}", "columns": ["", "before", "after"], "rows": rows}


def _online(ctx: Context[PreferenceOptions], model: LanguageModel, settings: Settings, dtype: torch.dtype) -> dict[str, Any]:
    from norma.align.online import OnlinePreference, by_model, by_spec
    from norma.align.rows import read_items

    options, model = ctx.options, answering(ctx, model)
    judge = by_spec(ctx.need_spec()) if options.reward_model is None else by_model(_reward_model(ctx, options.reward_model))
    items = read_items(ctx.path(options.questions or ""))
    online, before = options.online, model.copy() if options.lora is None else None
    training = OnlinePreference(
        model, before, judge, items, settings, online, micro_tokens=options.pairs.micro_tokens, seed=ctx.seed, dtype=dtype
    )
    steps = options.steps or 1
    ctx.progress.say(f"{steps} steps of {online.questions} questions x {online.answers} answers, the best over the worst")
    last = fit(ctx, model, training.losses, steps=steps)
    if not ctx.ranks.first:
        return {}
    save_model(ctx, model, method=options.method)
    return {"model": True, "method": options.method, "steps": steps, "reward": last.get("reward"), "flat_groups": last.get("flat_groups")}


def _reward_model(ctx: Context[PreferenceOptions], reference: str) -> Any:
    """The reward model of another stage."""
    from norma.align.reward_model import RewardModel

    return RewardModel.load(ctx.path(reference))
