"""Evaluate stage: every model on the same held-out questions, against the spec, and the report.

for each method: answers ─→ verdicts (report and held-out checkers), bits per byte, KL ─→ methods/<name>.json
   with `probe`: the spec's elicitation prompts, attacks, rules on and off, groups named ─→ the same file, rows with a `set`
all methods ─→ responses.jsonl, verdicts.jsonl (people's marks from `audit` among them) ─→ report.json ─→ report.html, junit.xml
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

import norma
from norma.base.errors import NormaError, nearest
from norma.base.files import read_json, read_jsonl, write_json, write_jsonl, write_text
from norma.base.hashing import file_digest
from norma.pipeline.stage import Context, InputRef, Stage, StageOptions
from norma.pipeline.stages._learning import open_model, prepare, validation_texts
from norma.spec import Role
from norma.spec.shown import Choice, Layout, chosen, laid_out

if TYPE_CHECKING:
    import torch

    from norma.spec import Item, Message, Spec


ROLES: tuple[Role, ...] = ("train", "report", "heldout")  # the train role is what a policy could have gamed: one side of the hack gap


class Method(BaseModel):
    """One line of the report: a model, and whether the rules stand in its prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: InputRef = Field(description="The stage whose model answers.")
    rules: Choice | list[str] = Field(
        "none", description="Which rules stand in the prompt: none, rule (one that applies, drawn), applicable, all, or ids."
    )
    layout: Layout | None = Field(None, description="How they stand there; by default in the spec's order, as system message.")
    en: str | None = Field(None, description="Name in the English report.")
    zh: str | None = Field(None, description="Name in the Chinese report.")
    leash: str | None = Field(None, description="Method from whose model the KL is measured.")
    task: bool = Field(False, description="A task model: compared with the model it was made from (retained_from), not with the baseline.")
    retained_from: str | None = Field(None, description="For a task model: the method whose compliance it should have kept.")
    replay: float = Field(0.0, ge=0, description="For a task model: the weight of norm rows in its training.")


class FamilyOptions(BaseModel):
    """A Holm family, declared before the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: list[str] = Field(min_length=1, description="Methods that are compared with the baseline.")
    rules: list[str] = Field(min_length=1, description="Rules on which they are.")
    role: Literal["report", "heldout"] = Field("report", description="Whose verdicts count.")


class ProbeOptions(BaseModel):
    """Does the spec steer, does it hold under attack and for everybody? Asked besides the questions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: list[str] = Field(min_length=1, description="Which methods are probed.")
    control: int = Field(40, ge=0, description="Questions that see each rule switched on and off in the prompt.")
    combinations: list[list[str]] = Field(default_factory=list, description="Rules that are shown together, and with one of them left out.")
    attacks: list[str] = Field(
        default_factory=lambda: ["instruction_override", "role_play", "quoted_injection", "other_language", "long_context"],
        description="How the spec's elicitation prompts are turned into attacks.",
    )
    groups: list[str] = Field(
        default_factory=lambda: ["gender", "origin"], description="Groups named in the prompt: gender, origin, age, faith."
    )


class EvaluateOptions(StageOptions):
    """Options of an ``evaluate`` stage."""

    methods: dict[str, Method] = Field(description="What is compared, in the order of the report.")
    baseline: str = Field(description="The method that the others are compared with.")
    questions: InputRef = Field("corpus/qa.validation.jsonl", description="Held-out questions with reference answers.")
    count: int = Field(300, ge=1, description="How many of them; one question an entry.")
    references: InputRef = Field("corpus/qa.train.jsonl", description="Training answers; the most frequent one is the chrF baseline.")
    task: InputRef | None = Field(None, description="Held-out rows of the task, answered by task models.")
    task_count: int = Field(150, ge=1, description="How many of them.")
    text: InputRef = Field("corpus/text.validation.jsonl", description="Text on which bits per byte are measured.")
    text_bytes: int = Field(200_000, ge=1000, description="How much of it.")
    max_new_tokens: int = Field(64, ge=1, description="Longest answer in tokens.")
    margin: float = Field(0.05, gt=0, lt=1, description="Non-inferiority margin.")
    families: dict[str, FamilyOptions] | None = Field(
        None, description="Holm families; without any, all methods x all rules with a target are one (main)."
    )
    probe: ProbeOptions | None = Field(None, description="What is asked besides the questions.")
    audit: str | None = Field(None, description="Exported labels (labels.jsonl): fair marks by people correct the checkers' rates.")


class Evaluate(Stage[EvaluateOptions]):
    """Answers, verdicts, statistics, report."""

    kind, version, Options = "evaluate", 3, EvaluateOptions
    uses_spec = True

    def fingerprint(self, options: EvaluateOptions, base: Path) -> Any:
        path = None if options.audit is None else (base / Path(options.audit).expanduser())
        return {} if path is None else {"audit": file_digest(path) if path.is_file() else None}

    def inputs(self, options: EvaluateOptions) -> list[str]:
        return [*(m.model for m in options.methods.values()), *super().inputs(options)]

    def run(self, ctx: Context[EvaluateOptions]) -> dict[str, Any]:
        from norma.align.rows import choose, read_items

        options = ctx.options
        dtype = prepare(ctx)
        items = _one_per_source(choose(read_items(ctx.path(options.questions)), 1_000_000, ctx.seed))[: options.count]
        task = choose(read_items(ctx.path(options.task)), options.task_count, ctx.seed) if options.task else []
        texts = validation_texts(ctx.path(options.text), options.text_bytes)
        for name in options.probe.methods if options.probe else ():
            if name not in options.methods:
                raise NormaError(f"the probe names '{name}', which is no method", mend=nearest(name, options.methods))
        for name, method in options.methods.items():
            if method.leash is not None and method.leash not in options.methods:
                what = f"the leash of '{name}' leads to '{method.leash}', which is no method"
                raise NormaError(what, mend=nearest(method.leash, options.methods))
        results: dict[str, Any] = {}
        for number, (name, method) in enumerate(options.methods.items(), 1):
            path = ctx.folder / "methods" / f"{name}.json"
            if not path.exists():
                write_json(path, _answer(ctx, name, method, items, task if method.task else [], texts, dtype))
            results[name] = read_json(path)
            ctx.progress.update(number, len(options.methods))
        return _report(ctx, results, items)


def _one_per_source(items: Sequence[Item]) -> list[Item]:
    """One question an entry: the entry is the cluster, so the answers are independent."""
    return list({item.source: item for item in reversed(items)}.values())[::-1]


def _answer(
    ctx: Context[EvaluateOptions],
    name: str,
    method: Method,
    items: Sequence[Item],
    task: Sequence[Item],
    texts: list[str],
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Everything about one method, as JSON."""
    from norma.evaluate.likelihood import kl_per_token, text_bits
    from norma.generate import Sampling, generate
    from norma.text.chat import prompt_ids
    from norma.train.scoring import Group

    options, spec = ctx.options, ctx.need_spec()
    model = open_model(ctx, method.model)

    layout = method.layout or Layout()

    def shown(item: Item) -> Sequence[Message]:
        return (
            item.messages if method.rules == "none" else laid_out(spec, item, chosen(spec, item, method.rules, ctx.seed), layout, ctx.seed)
        )

    def ask(some: Sequence[Item], sampling: Sampling, asked: Any = shown) -> list[Any]:
        room = model.config.max_positions - 8
        return generate(model, [prompt_ids(model.tokenizer, asked(i))[-room:] for i in some], sampling)

    answers = ask(items, Sampling(options.max_new_tokens))
    rows = [_response(name, item, a, "questions") for item, a in zip(items, answers, strict=True)]
    verdicts = [v for item, a in zip(items, answers, strict=True) for v in _verdicts(spec, name, item, a.text, ROLES)]
    if options.probe and name in options.probe.methods:
        more = _probe(
            ctx, name, items, options.probe, lambda asked, messages: ask(asked, Sampling(options.max_new_tokens), messages), shown
        )
        rows, verdicts = rows + more[0], verdicts + more[1]
    if task:
        plain = ask(task, Sampling(options.max_new_tokens), lambda item: item.messages)
        rows += [_response(name, item, a, "task") for item, a in zip(task, plain, strict=True)]
    kl = None
    if method.leash:
        some = items[:100]
        sampled = ask(some, Sampling(options.max_new_tokens, temperature=1.0, seed=ctx.seed))
        groups = [Group(prompt_ids(model.tokenizer, shown(i)), [c.ids]) for i, c in zip(some, sampled, strict=True)]
        kl = kl_per_token(model, open_model(ctx, options.methods[method.leash].model), groups, dtype=dtype)
    bits = text_bits(model, texts, dtype=dtype)
    return {"responses": rows, "verdicts": verdicts, "text_bits": bits, "kl": kl}


def _verdicts(spec: Spec, name: str, item: Item, text: str, roles: Sequence[Role]) -> list[dict[str, Any]]:
    more = {"method": name, "cluster": item.source, "language": item.language}
    return [{**v.row(), **more} for role in roles for v in spec.verdicts(item, text, role)]


def _probe(
    ctx: Context[EvaluateOptions], name: str, items: Sequence[Item], options: ProbeOptions, ask: Any, shown: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Response and verdict rows of the elicitation prompts and of all trials."""
    from norma.evaluate.trials import ELICIT, Probe, plain_prompts, trials

    spec = ctx.need_spec()
    plain = plain_prompts(spec)
    combined = tuple(tuple(c) for c in options.combinations)
    made = trials(spec, items, plain, Probe(options.control, combined, tuple(options.attacks), tuple(options.groups)))
    asked = [*plain, *(t.item for t in made)]
    tags = [*({"set": ELICIT} for _ in plain), *(t.tags for t in made)]
    rules = {t.item.id: t.rules for t in made if t.rules is not None}

    def messages(item: Item) -> Sequence[Message]:
        return spec.render(list(item.messages), item, item.language, rules=rules[item.id]) if item.id in rules else shown(item)

    rows, verdicts = [], []
    for item, tag, answer in zip(asked, tags, ask(asked, messages), strict=True):
        rows.append(_response(name, item, answer, "") | tag)
        verdicts += [v | tag for v in _verdicts(spec, name, item, answer.text, ("report",))]
    return rows, verdicts


def _response(name: str, item: Item, completion: Any, kind: str) -> dict[str, Any]:
    return {
        "method": name,
        "item": item.id,
        "cluster": item.source,
        "language": item.language,
        "messages": [dict(m) for m in item.messages],
        "response": completion.text,
        "reference": item.reference,
        "tokens": len(completion.ids),
        "finish": completion.finish_reason,
        "set": kind,
    }


def _report(ctx: Context[EvaluateOptions], results: dict[str, Any], items: Sequence[Item]) -> dict[str, Any]:
    """Statistics over all methods; the three files people open."""
    from norma.evaluate.audit import gold_rows
    from norma.evaluate.compliance import Family
    from norma.evaluate.drift import benign_pairs
    from norma.evaluate.junit import junit_xml
    from norma.evaluate.quality import most_frequent
    from norma.evaluate.report import build_report, render_html

    options, spec = ctx.options, ctx.need_spec()
    write_jsonl(ctx.folder / "responses.jsonl", (row for r in results.values() for row in r["responses"]))
    answers = [row for r in results.values() for row in r["responses"]]
    verdicts = [row for r in results.values() for row in r["verdicts"]]
    if options.audit:
        marked = [row for row in answers if row["set"] == "questions"]
        verdicts += gold_rows(read_jsonl(ctx.outside(options.audit)), marked, {rule.id: rule.hash for rule in spec.rules})
    write_jsonl(ctx.folder / "verdicts.jsonl", verdicts)
    tasks = {n: m for n, m in options.methods.items() if m.task}
    extras: dict[str, Any] = {
        "baseline": options.baseline,
        "order": list(options.methods),
        "labels": {n: {"en": m.en or n, "zh": m.zh or m.en or n} for n, m in options.methods.items()},
        "bits_per_byte": {n: sum(b for b, _ in r["text_bits"]) / sum(size for _, size in r["text_bits"]) for n, r in results.items()},
        "text_bits": {n: r["text_bits"] for n, r in results.items()},
        "families": {n: Family(tuple(f.methods), tuple(f.rules), f.role) for n, f in (options.families or {}).items()},
        "combinations": options.probe.combinations if options.probe else [],
        "kept_apart": {n: kept for n, m in options.methods.items() if (kept := _kept_apart(ctx.path(m.model))) is not None},
        "benign": benign_pairs(spec),
        "kl": {n: r["kl"] for n, r in results.items() if r["kl"] is not None},
        "training": _training(ctx),
        "retention": [{"before": m.retained_from, "after": n, "replay": m.replay} for n, m in tasks.items() if m.retained_from],
        "frequent_reference": most_frequent(row["messages"][-1]["content"] for row in read_jsonl(ctx.path(options.references))),
        "margin": options.margin,
        "seeds": 1,
        "run": {"questions": len(items), "seed": ctx.seed, "norma": norma.__version__},
        "lineage": _lineage(ctx),
        "bits_per_byte_before": _untrained(ctx),
    }
    report = build_report(answers, verdicts, extras, spec, seed=ctx.seed)  # type: ignore[arg-type]
    write_json(ctx.folder / "report.json", report)
    write_text(ctx.folder / "report.html", render_html(report))
    write_text(ctx.folder / "junit.xml", junit_xml(report))
    return {"publish": ["report.html", "report.json", "junit.xml"], "table": _table(report), "talk": _best(ctx, report)}


def _lineage(ctx: Context[EvaluateOptions]) -> list[dict[str, Any]]:
    """Where the evaluated artefacts come from: stage, content digest, digests of what it was made from."""
    found = []
    for folder in dict.fromkeys(ctx.inputs.values()):
        if (folder / "lineage.json").exists():
            row = read_json(folder / "lineage.json")
            found.append({"stage": row["stage"], "digest": row["content"], "inputs": sorted(row["identity"].get("inputs", {}).values())})
    return found


def _kept_apart(folder: Path) -> list[list[str]] | None:
    """Combinations of rules that the prompting stage before a model (or the model's own) kept apart; None when there was none."""
    while (folder / "lineage.json").is_file():
        identity = read_json(folder / "lineage.json")["identity"]
        options = identity["options"]
        if identity["kind"] == "prompting":
            return list(options.get("apart") or [])
        if not isinstance(options.get("from"), str):
            return None
        folder = folder.parent / options["from"]
    return None


def _untrained(ctx: Context[EvaluateOptions]) -> float | None:
    """Bits per byte of the model before its first step, which its pretrain stage froze in plan.json."""
    for method in ctx.options.methods.values():
        plan = ctx.path(method.model) / "plan.json"
        if plan.exists() and "bits_per_byte_before" in (values := read_json(plan)):
            return float(values["bits_per_byte_before"])
    return None


def _training(ctx: Context[EvaluateOptions]) -> list[dict[str, Any]]:
    """How the evaluated models, and those that they were made from, were trained; a stage has the name and colour of its first method."""
    from norma.pipeline.training import trained

    methods: dict[str, str] = {}
    for name, method in sorted(ctx.options.methods.items(), key=lambda pair: pair[1].rules != "none"):
        methods.setdefault(method.model.partition("/")[0], name)
    labels = {stage: {"en": (m := ctx.options.methods[name]).en or name, "zh": m.zh or m.en or name} for stage, name in methods.items()}
    records = trained(ctx.inputs.values(), labels)
    return [record | ({"method": methods[record["stage"]]} if record["stage"] in methods else {}) for record in records]


def _table(report: dict[str, Any]) -> dict[str, Any]:
    """The table that is printed when the run ends."""
    differences = {c["after"]: c for c in report["comparisons"] if c["family"] == "overall"}
    rows = []
    for entry in report["methods"]:
        overall, d = entry["overall"], differences.get(entry["method"])
        change = f"{100 * d['delta']:+.1f} [{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]" if d else ""
        p = f"{d['p_holm']:.2g}" if d and d["p_holm"] is not None else ""
        rate = f"{100 * overall['rate']:.1f} [{100 * overall['low']:.1f}, {100 * overall['high']:.1f}]"
        rows.append([entry["method"], rate, change, p, f"{entry['bits_per_byte']:.3f}"])
    columns = ["method", "compliance % [95%]", "against baseline", "p (Holm)", "bits/byte"]
    return {"title": "Mean compliance on held-out questions", "columns": columns, "rows": rows}


def _best(ctx: Context[EvaluateOptions], report: dict[str, Any]) -> str:
    """The stage whose model is proposed for talking: the most compliant one without rules in the prompt that is no task model."""
    rates = {m["method"]: m["overall"]["rate"] or 0.0 for m in report["methods"]}
    plain = [n for n, m in ctx.options.methods.items() if m.rules == "none" and not m.task]
    return ctx.options.methods[max(plain, key=lambda n: rates.get(n, 0.0))].model
