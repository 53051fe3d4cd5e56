"""report.json: every number of the report, computed here and nowhere else; the page only draws it.

    response rows, verdict rows ─→ rates, comparisons, hack gaps, quality, drift, examples ┐
    rows of trials (rules on and off, attacks, groups) ─→ steering, attacks, gaps ─────────┤
    extras (bits per byte, KL, training, retention, run, lineage) ─→ checked and passed on ──┼─→ `build_report` ─→ dict ─→ report.json
    spec ─→ rule cards (statements, targets, hashes) ──────────────────────────────────────┘                      └─→ report.html

The dict obeys `report.schema.json`: finite numbers or null, arrays instead of rule ids as keys. Same input, same bytes: no clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypedDict

from norma.base.errors import NormaError, nearest
from norma.evaluate import audit, compliance, control, drift, hack_gap, quality, tax
from norma.evaluate.report.examples import choose_examples
from norma.evaluate.report.items import pack_items
from norma.evaluate.report.wording import method_label
from norma.evaluate.trials import ELICIT, is_main

FORMAT = 1


class RuleLike(Protocol):
    """What the report reads of a rule (`norma.spec.Rule` has it)."""

    @property
    def id(self) -> str: ...
    @property
    def hash(self) -> str: ...
    @property
    def statement(self) -> Mapping[str, str]: ...
    @property
    def level(self) -> Any: ...
    @property
    def must(self) -> bool: ...
    @property
    def target(self) -> Any: ...


class SpecLike(Protocol):
    """What the report reads of a spec (`norma.spec.Spec` has it)."""

    @property
    def id(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def languages(self) -> Sequence[str]: ...
    @property
    def rules(self) -> Sequence[RuleLike]: ...


class Extras(TypedDict, total=False):
    """What the evaluation of answers cannot know. Every key is optional; what is absent is left out of the report, never guessed."""

    baseline: str  # method that the others are compared with; default: the first of `order`
    order: list[str]  # methods as they should be listed; default: order of appearance
    labels: dict[str, dict[str, str]]  # method -> {"en": ..., "zh": ...}
    pairs: list[tuple[str, str]]  # declared comparisons; default: baseline with every other method that is not a task model
    under_test: list[str]  # methods that must reach the targets (junit.xml); default: the "after" side of `pairs`
    bits_per_byte: dict[str, float]  # method -> bits per byte on validation text
    text_bits: dict[str, list[list[float]]]  # method -> (bits, bytes) of blocks of validation text, the same blocks for all
    families: dict[str, compliance.Family]  # Holm families that the recipe declares in place of main
    combinations: list[list[str]]  # rules that were shown together (set control)
    kept_apart: dict[str, list[list[str]]]  # method -> combinations that its training never showed together
    benign: dict[str, str]  # harmless prompt -> the prompt it looks like (clusters of the elicitation prompts)
    bits_per_byte_before: float  # of the untrained model
    kl: dict[str, float]  # method -> KL to the model it started from, nats a token
    training: list[dict[str, Any]]  # how each stage was trained: records of norma.pipeline.training, with "method" where one is evaluated
    retention: list[dict[str, Any]]  # {"before", "after", "replay": share of norm rows, 0 for none}
    frequent_reference: str  # the most frequent reference among TRAINING rows
    openings: list[str]  # patterns of polite openings for the second chrF figure
    seeds: int  # training seeds behind every method
    margin: float  # non-inferiority margin
    gate: str  # "point" or "lower": how a target is compared with a rate
    run: dict[str, Any]  # name, recipe digest, versions, machine, times: shown as given
    lineage: list[dict[str, Any]]  # {"stage", "digest", "inputs": [...]}
    limits: list[dict[str, str]]  # further limits, {"en", "zh"}


def build_report(
    responses: Sequence[Mapping[str, Any]],
    verdicts: Iterable[Mapping[str, Any]],
    extras: Extras,
    spec: SpecLike,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    examples: int = 2,
) -> dict[str, Any]:
    """The whole report as JSON values.

    Args:
        responses: response rows; ``reference`` may be None, ``sample`` (default 0) tells several answers to one prompt apart, ``set``
            ("questions" by default) keeps other data (the task's own inputs, say "summaries") out of the compliance examples.
        verdicts: verdict rows with ``method``, ``cluster``, ``language``.
        seed: of bootstrap, permutation and the choice of examples.
        examples: how many to show per rule, method and kind.
    """
    every_verdict, every_response = list(verdicts), responses
    verdict_rows, responses = (
        [v for v in every_verdict if is_main(v)],
        [r for r in responses if r.get("arm") is None and r.get("set") != ELICIT],
    )
    judgements = compliance.Judgements(verdict_rows)
    answered = list(dict.fromkeys(str(r["method"]) for r in responses))
    methods = _order([*answered, *(m for m in judgements.methods if m not in answered)], extras.get("order"))
    judged = [m for m in methods if judgements.table(m, "report")]
    if not judged:
        raise NormaError("no verdicts to report on", mend="Evaluate at least one method with the spec's report checkers")
    baseline = extras.get("baseline", judged[0])
    retention_pairs = [(str(r["before"]), str(r["after"])) for r in extras.get("retention", [])]
    tasks = {after for _, after in retention_pairs}
    default = [(baseline, m) for m in judged if m != baseline and m not in tasks]
    pairs = [(str(a), str(b)) for a, b in extras.get("pairs", default)]
    for name in (baseline, *(m for pair in (*pairs, *retention_pairs) for m in pair)):
        if name not in judged:
            raise NormaError(f"the comparison names '{name}', which has no verdicts", mend=nearest(name, judged))
    cards = [_card(rule, verdict_rows) for rule in spec.rules]
    targets = [c["rule"] for c in cards if c["target"] is not None] or [c["rule"] for c in cards]
    order = {c["rule"]: i for i, c in enumerate(cards)}
    rules = sorted(judgements.rules("report"), key=lambda r: order.get(r, len(order)))
    heldout = sorted(judgements.rules("heldout"), key=lambda r: order.get(r, len(order)))
    margin, seeds = extras.get("margin", 0.05), extras.get("seeds", 1)
    families = extras.get("families")
    comparisons = compliance.compare_all(judgements, pairs, targets, families=families, margin=margin, seed=seed, confidence=confidence)
    comparisons.sort(key=lambda c: order.get(c.get("rule") or "", -1))
    gaps = hack_gap.hack_gaps(judgements, pairs, seed=seed, confidence=confidence, kl=extras.get("kl"))
    languages = judgements.languages()
    sets = list(dict.fromkeys(str(r.get("set", "questions")) for r in responses))
    questions = [r for r in responses if r.get("set", "questions") == "questions"]
    common: dict[str, Any] = {"seed": seed, "confidence": confidence}
    elicited = [r for r in every_response if r.get("arm") is None and r.get("cluster") in _prompts(extras.get("benign", {}))]

    report = {
        "report": FORMAT,
        "spec": {
            "id": spec.id,
            "version": spec.version,
            "digest": spec.digest,
            "languages": list(spec.languages),
            "rules": cards,
        },
        "run": dict(extras.get("run", {})),
        "claim": {"seeds": seeds, "about": "method" if seeds >= 3 else "checkpoint"},
        "settings": {
            "confidence": confidence,
            "seed": seed,
            "margin": margin,
            "gate": extras.get("gate", "point"),
            "baseline": baseline,
            "pairs": [list(p) for p in pairs],
            "under_test": list(extras.get("under_test", [after for _, after in pairs] or judged)),
            "families": _families(comparisons, families),
        },
        "data": {
            "answers": len(responses),
            "verdicts": len(every_verdict),
            "trials": len({(v["method"], v["item"]) for v in every_verdict if not is_main(v)}),
            "questions": len({key for (_, role), t in judgements.tables.items() if role == "report" for key in t}),
            "clusters": len({p.cluster for (_, role), t in judgements.tables.items() if role == "report" for p in t.values()}),
            "languages": [
                {
                    "language": tag,
                    "questions": len(
                        {k for (m, r), t in judgements.tables.items() if r == "report" for k, p in t.items() if p.language == tag}
                    ),
                }
                for tag in languages
            ],
        },
        "methods": [
            {
                "method": m,
                "label": method_label(m, extras.get("labels")),
                **compliance.method_rates(judgements.table(m, "report"), rules, confidence),
                "heldout": compliance.method_rates(judgements.table(m, "heldout"), heldout, confidence) if heldout else None,
                "languages": [
                    {"language": tag, **compliance.method_rates(judgements.table(m, "report", tag), rules, confidence)} for tag in languages
                ],
                "bits_per_byte": extras.get("bits_per_byte", {}).get(m),
                "kl": extras.get("kl", {}).get(m),
            }
            for m in judged
        ],
        "comparisons": comparisons,
        "hack_gap": gaps,
        "hack_verdict": hack_gap.loudest(gaps),
        "quality": [
            {"set": name, **found}
            for name in sets
            if (
                found := quality.quality(
                    [r for r in responses if r.get("set", "questions") == name],
                    methods,
                    frequent=extras.get("frequent_reference") if name == "questions" else None,
                    openings=extras.get("openings", quality.OPENINGS),
                    seed=seed,
                    confidence=confidence,
                )
            )
        ],
        "audit": audit.audits(judgements, judged, rules, confidence),
        "control": control.steering(every_verdict, judged, rules, extras.get("combinations", []), extras.get("kept_apart"), **common),
        "attack": control.attacks(every_verdict, judged, rules, **common),
        "gaps": control.gaps(every_verdict, judged, rules, **common),
        "over_refusal": drift.over_refusal(elicited, extras.get("benign", {}), judged, confidence),
        "tax": tax.tax(
            extras.get("text_bits", {}), questions, judged, baseline, openings=extras.get("openings", quality.OPENINGS), **common
        ),
        "drift": drift.drift(questions, methods, baseline, **common),
        "bits_per_byte_before": extras.get("bits_per_byte_before"),
        "training": [dict(record) for record in extras.get("training", [])],
        "retention": _retention(judgements, extras.get("retention", []), rules, targets, margin, seed, confidence),
        "examples": choose_examples(responses, verdict_rows, judged, rules, baseline, count=examples, seed=seed),
        "items": pack_items(questions, verdict_rows, judged, rules, seed=seed),
        "lineage": [dict(row) for row in extras.get("lineage", [])],
        "limits": list(extras.get("limits", [])),
    }
    return finite(report)  # type: ignore[no-any-return]  # finite() keeps the shape; its type is JSON


def finite(value: Any) -> Any:
    """JSON values only: NaN and infinities become null, tuples lists; numpy numbers become Python's."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if hasattr(value, "item") or isinstance(value, float):
        number = value.item() if hasattr(value, "item") else value
        return number if not isinstance(number, float) or math.isfinite(number) else None
    return str(value)


def _order(methods: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    first = [m for m in wanted or () if m in methods]
    return [*first, *(m for m in methods if m not in first)]


def _card(rule: RuleLike, verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A rule as the reader needs it. Checkers are those that really judged, with their digests, taken from the verdict rows."""
    used = {(str(v["role"]), str(v.get("checker", "")), str(v.get("checker_digest", ""))) for v in verdicts if v["rule"] == rule.id}
    return {
        "rule": rule.id,
        "hash": rule.hash,
        "level": str(rule.level),
        "must": bool(rule.must),
        "target": getattr(rule.target, "min_rate", None),
        "statement": dict(rule.statement),
        "checkers": [{"role": r, "checker": c, "digest": d} for r, c, d in sorted(used)],
    }


def _families(rows: Sequence[compliance.Comparison], declared: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(row["family"] for row in rows))
    size = {name: sum(r["family"] == name and r["p"] is not None for r in rows) for name in names}
    return [{"family": name, "size": size[name], "declared": name in (declared or {})} for name in names]


def _prompts(pairs: Mapping[str, str]) -> set[str]:
    return {*pairs, *pairs.values()}


def _retention(
    judgements: compliance.Judgements,
    wanted: Sequence[Mapping[str, Any]],
    rules: Sequence[str],
    targets: Sequence[str],
    margin: float,
    seed: int,
    confidence: float,
) -> list[dict[str, Any]]:
    """Norm retention: the same prompts before and after task fine-tuning, a Holm family of its own over (overall and target rules)."""
    rows: list[dict[str, Any]] = []
    for entry in wanted:
        for rule in (None, *(r for r in rules if r in targets)):
            found = compliance.compare(
                judgements,
                str(entry["before"]),
                str(entry["after"]),
                rules,
                rule=rule,
                family="retention",
                margin=margin,
                seed=seed,
                confidence=confidence,
            )
            before, after = found["before_rate"], found["after_rate"]
            kept = after / before if before and after is not None else None
            rows.append({**found, "replay": float(entry.get("replay", 0.0)), "kept": kept})
    compliance.adjust(rows)
    return rows
