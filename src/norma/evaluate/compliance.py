"""From verdict rows to rates per method and rule, and to paired before/after comparisons.

    verdict rows ─→ `Judgements` (method, role) → prompt → rule → one status
                      ├─→ `method_rates`   overall and per rule: RATE, with best/worst-case bounds where something is undecided
                      └─→ `compare`        the same prompts before and after: delta, interval, p; `adjust` adds Holm's p per family

A RATE is compliant / (compliant + violation). `not_applicable` never enters; `unsure` and `error` are missing, neither pass nor zero,
and the bounds say what they could change. Roles are never mixed: held-out checkers have tables and Holm families of their own.
`overall` is the mean over prompts of the mean over the rules that apply to the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from norma.base.errors import NormaError, nearest
from norma.base.hashing import digest
from norma.evaluate import statistics

COMPLIANT, VIOLATION, NOT_APPLICABLE, UNSURE, ERROR = "compliant", "violation", "not_applicable", "unsure", "error"
# When several checkers of one role judge one rule the answer must satisfy all: one definite violation decides, then what is missing.
_PRECEDENCE = (NOT_APPLICABLE, VIOLATION, ERROR, UNSURE, COMPLIANT)

Key = tuple[str, int]  # item, sample


class RateRow(TypedDict, total=False):
    """RATE of report.json. In ``overall``, ``compliant`` counts answers that keep every applicable rule; ``rate`` is the mean of means."""

    rule: str
    n: int
    applicable: int
    compliant: int
    unsure: int
    error: int
    clusters: int
    rate: float | None
    low: float | None
    high: float | None
    bounds: list[float] | None


class Comparison(TypedDict, total=False):
    """One paired before/after row of report.json."""

    before: str
    after: str
    rule: str | None
    role: str
    language: str | None
    family: str
    n: int
    clusters: int
    before_rate: float | None
    after_rate: float | None
    delta: float | None
    low: float | None
    high: float | None
    better: int
    worse: int
    p: float | None
    p_holm: float | None
    test: str
    margin: float
    non_inferior: bool | None
    p_non_inferior: float | None
    too_few: int | None


@dataclass(frozen=True)
class Family:
    """A Holm family declared before the run: these methods (the "after" side) x these rules, under the checkers of one role."""

    methods: tuple[str, ...]
    rules: tuple[str, ...]
    role: str = "report"


class Prompt:
    """The statuses of one answer, by rule, with the prompt's cluster and language."""

    __slots__ = ("cluster", "language", "statuses")

    def __init__(self, cluster: str, language: str) -> None:
        self.cluster, self.language = cluster, language
        self.statuses: dict[str, str] = {}

    def decided(self, rules: Iterable[str]) -> dict[str, float]:
        """Rule -> 1.0 (kept) or 0.0 (broken), undecided rules left out."""
        return {r: float(s == COMPLIANT) for r in rules if (s := self.statuses.get(r)) in (COMPLIANT, VIOLATION)}


class Judgements:
    """Verdict rows in order: (method, role) -> (item, sample) -> Prompt."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.tables: dict[tuple[str, str], dict[Key, Prompt]] = {}
        for number, row in enumerate(rows, 1):
            missing = {"method", "role", "item", "rule", "status"} - row.keys()
            if missing:
                raise NormaError(f"a verdict row lacks '{sorted(missing)[0]}'", where=f"verdict row {number}")
            status = str(row["status"])
            if status not in _PRECEDENCE:
                raise NormaError(f"'{status}' is not a verdict", where=f"verdict row {number}", mend=f"Known: {', '.join(_PRECEDENCE)}")
            table = self.tables.setdefault((row["method"], row["role"]), {})
            key = (str(row["item"]), int(row.get("sample", 0)))
            prompt = table.setdefault(key, Prompt(str(row.get("cluster") or row["item"]), str(row.get("language") or "")))
            known = prompt.statuses.get(row["rule"])
            prompt.statuses[row["rule"]] = status if known is None else min(known, status, key=_PRECEDENCE.index)

    def table(self, method: str, role: str, language: str | None = None) -> dict[Key, Prompt]:
        prompts = self.tables.get((method, role), {})
        return prompts if language is None else {k: p for k, p in prompts.items() if p.language == language}

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(method for method, _ in self.tables))

    def rules(self, role: str) -> list[str]:
        """Rules that a checker of this role judged at least once, in order of first appearance."""
        return list(
            dict.fromkeys(r for (_, of), prompts in self.tables.items() if of == role for p in prompts.values() for r in p.statuses)
        )

    def languages(self) -> list[str]:
        return sorted({p.language for prompts in self.tables.values() for p in prompts.values() if p.language})


def rule_rate(prompts: Mapping[Key, Prompt], rule: str, confidence: float = 0.95) -> RateRow:
    """RATE of one rule over ``prompts``."""
    judged = [(p.statuses[rule], p.cluster) for p in prompts.values() if rule in p.statuses]
    counts = {s: sum(status == s for status, _ in judged) for s in _PRECEDENCE}
    decided = [(float(status == COMPLIANT), cluster) for status, cluster in judged if status in (COMPLIANT, VIOLATION)]
    applicable, missing = len(judged) - counts[NOT_APPLICABLE], counts[UNSURE] + counts[ERROR]
    kept = counts[COMPLIANT]
    estimate = statistics.clustered_rate([v for v, _ in decided], [c for _, c in decided], confidence)
    return {
        "rule": rule,
        "n": len(judged),
        "applicable": applicable,
        "compliant": kept,
        "unsure": counts[UNSURE],
        "error": counts[ERROR],
        "clusters": estimate.clusters,
        "rate": estimate.rate,
        "low": estimate.low,
        "high": estimate.high,
        "bounds": [kept / applicable, (kept + missing) / applicable] if missing else None,
    }


def overall_rate(prompts: Mapping[Key, Prompt], rules: Sequence[str], confidence: float = 0.95) -> RateRow:
    """The mean over prompts of the mean over applicable rules. Counts are of answers: ``compliant`` keeps every applicable rule."""
    values, clusters, worst, best = [], [], [], []
    applicable = kept = unsure = errors = judged = 0
    for prompt in prompts.values():
        statuses = [prompt.statuses[r] for r in rules if r in prompt.statuses]
        judged += bool(statuses)
        active = [s for s in statuses if s != NOT_APPLICABLE]
        if not active:
            continue
        applicable += 1
        kept += all(s == COMPLIANT for s in active)
        unsure += UNSURE in active
        errors += ERROR in active
        worst.append(sum(s == COMPLIANT for s in active) / len(active))
        best.append(sum(s != VIOLATION for s in active) / len(active))
        decided = prompt.decided(rules)
        if decided:
            values.append(sum(decided.values()) / len(decided))
            clusters.append(prompt.cluster)
    estimate = statistics.clustered_rate(values, clusters, confidence)
    return {
        "n": judged,
        "applicable": applicable,
        "compliant": kept,
        "unsure": unsure,
        "error": errors,
        "clusters": estimate.clusters,
        "rate": estimate.rate,
        "low": estimate.low,
        "high": estimate.high,
        "bounds": [float(np.mean(worst)), float(np.mean(best))] if unsure + errors else None,
    }


def method_rates(prompts: Mapping[Key, Prompt], rules: Sequence[str], confidence: float = 0.95) -> dict[str, Any]:
    """``{"overall": RATE, "rules": [RATE with rule]}`` of one method under one role."""
    return {
        "overall": overall_rate(prompts, rules, confidence),
        "rules": [rule_rate(prompts, rule, confidence) for rule in rules if any(rule in p.statuses for p in prompts.values())],
    }


def compare(
    judgements: Judgements,
    before: str,
    after: str,
    rules: Sequence[str],
    *,
    rule: str | None = None,
    role: str = "report",
    language: str | None = None,
    family: str = "main",
    margin: float = 0.05,
    seed: int = 0,
    confidence: float = 0.95,
) -> Comparison:
    """Before/after on the same prompts. Only prompts and rules decided on BOTH sides enter, so missing data cannot pose as a change."""
    old, new = judgements.table(before, role, language), judgements.table(after, role, language)
    wanted = list(rules) if rule is None else [rule]
    first, second, clusters = [], [], []
    for key, prompt in old.items():
        if key not in new:
            continue
        a, b = prompt.decided(wanted), new[key].decided(wanted)
        common = a.keys() & b.keys()
        if common:
            first.append(sum(a[r] for r in common) / len(common))
            second.append(sum(b[r] for r in common) / len(common))
            clusters.append(prompt.cluster)
    # The seed depends on what is compared: adding a rule elsewhere changes no other row.
    own_seed = int(digest([seed, before, after, rule, role, language])[:8], 16)
    found = statistics.paired_difference(first, second, clusters, seed=own_seed, confidence=confidence)
    return {
        "before": before,
        "after": after,
        "rule": rule,
        "role": role,
        "language": language,
        "family": family,
        "n": found.n,
        "clusters": found.clusters,
        "before_rate": float(np.mean(first)) if first else None,
        "after_rate": float(np.mean(second)) if second else None,
        "delta": found.delta,
        "low": found.low,
        "high": found.high,
        "better": found.better,
        "worse": found.worse,
        "p": found.p,
        "p_holm": None,
        "test": found.test,
        "margin": margin,
        "non_inferior": None if found.low is None else statistics.non_inferior(found.low, margin),
        "p_non_inferior": statistics.non_inferiority_p(first, second, clusters, margin) if first else None,
        "too_few": statistics.too_few(found.clusters, (found.better + found.worse) / max(1, found.n), found.p) if rule else None,
    }


def adjust(rows: Sequence[Any]) -> None:
    """Write Holm's p into every row, family by family. A comparison without data keeps None and does not count."""
    for family in dict.fromkeys(row["family"] for row in rows):
        members = [row for row in rows if row["family"] == family and row["p"] is not None]
        for row, value in zip(members, statistics.holm([row["p"] for row in members]), strict=True):
            row["p_holm"] = value


def compare_all(
    judgements: Judgements,
    pairs: Sequence[tuple[str, str]],
    targets: Sequence[str],
    *,
    families: Mapping[str, Family] | None = None,
    margin: float = 0.05,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Comparison]:
    """Every declared comparison with its Holm family.

    main: methods x target rules · overall: one row a method · exploratory: rules without a target · heldout: methods x rules with a
    held-out checker · language:xx: methods x (overall and target rules) within one language. ``families``, where the recipe declares
    some, take the place of main: what is in none of them is exploratory (of role report) or stays in heldout.
    """
    rules, heldout, languages = judgements.rules("report"), judgements.rules("heldout"), judgements.languages()
    _check_families(families or {}, [after for _, after in pairs], {"report": rules, "heldout": heldout})
    rows: list[Comparison] = []

    def family(after: str, rule: str, role: str) -> str:
        named = [n for n, f in (families or {}).items() if after in f.methods and rule in f.rules and f.role == role]
        if named:
            return named[0]
        return "heldout" if role == "heldout" else "main" if not families and rule in targets else "exploratory"

    def add(before: str, after: str, rule: str | None, role: str, language: str | None, family: str) -> None:
        wanted = heldout if role == "heldout" else rules
        rows.append(
            compare(
                judgements,
                before,
                after,
                wanted,
                rule=rule,
                role=role,
                language=language,
                family=family,
                margin=margin,
                seed=seed,
                confidence=confidence,
            )
        )

    for before, after in pairs:
        add(before, after, None, "report", None, "overall")
        for rule in rules:
            add(before, after, rule, "report", None, family(after, rule, "report"))
        if heldout:
            add(before, after, None, "heldout", None, "heldout")
        for rule in heldout:
            add(before, after, rule, "heldout", None, family(after, rule, "heldout"))
        if len(languages) > 1:
            for language in languages:
                for named in (None, *(r for r in rules if r in targets)):
                    add(before, after, named, "report", language, f"language:{language}")
    adjust(rows)
    return rows


RESERVED = ("overall", "exploratory", "heldout", "retention")


def _check_families(families: Mapping[str, Family], methods: Sequence[str], rules: Mapping[str, Sequence[str]]) -> None:
    """A family that names nothing real would correct for nothing; one comparison in two families would be corrected twice or never."""
    seen: dict[tuple[str, str, str], str] = {}
    for name, family in families.items():
        if name in RESERVED or ":" in name:
            raise NormaError(f"the Holm family '{name}' is Norma's own", mend="Give it another name")
        for method in family.methods:
            if method not in methods:
                raise NormaError(
                    f"the Holm family '{name}' names '{method}', which is compared with nothing", mend=nearest(method, methods)
                )
        for rule in family.rules:
            if rule not in rules.get(family.role, ()):
                what = f"the Holm family '{name}' names the rule '{rule}', which no {family.role} checker judged"
                raise NormaError(what, mend=nearest(rule, rules.get(family.role, ())))
        for key in ((m, r, family.role) for m in family.methods for r in family.rules):
            if key in seen:
                raise NormaError(f"'{key[1]}' of '{key[0]}' stands in two Holm families, '{seen[key]}' and '{name}'")
            seen[key] = name
