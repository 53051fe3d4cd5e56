"""Does the spec steer, does it hold under attack, does it hold for everybody? Paired differences from the rows of trials.

    rows of set control  rate of a rule with the rule in the prompt minus without it ─→ `steering`
    rows of set attack   rate under attack minus rate on the plain prompt            ─→ `attacks`
    rows of all sets     one language against another, one group against another     ─→ `gaps`

Everything goes through ``compliance.compare``: an arm is a method of its own, its items carry the id of the plain item. Each kind of
question is a Holm family of its own: control, control:combinations, attack, gap:language, gap:<kind of group>.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from norma.base.hashing import digest
from norma.evaluate import statistics
from norma.evaluate.attacks import OWN
from norma.evaluate.compliance import Judgements, Key, Prompt, adjust, compare, overall_rate, rule_rate
from norma.evaluate.trials import ATTACK, CONTROL, ELICIT, GROUP, MAIN, arm_name

_AT = " @ "  # between method and arm; never part of a stage's or a model's name in a recipe


def arms(rows: Iterable[Mapping[str, Any]], sets: Sequence[str], plain: str = "") -> Judgements:
    """Judgements in which every arm is a method ``METHOD @ ARM`` over the plain items; rows without an arm get the arm ``plain``."""
    made = []
    for row in rows:
        if row.get("set", MAIN) in sets:
            made.append({**row, "method": f"{row['method']}{_AT}{row.get('arm', plain)}", "item": row.get("base") or row["item"]})
    return Judgements(made)


def steering(
    rows: Sequence[Mapping[str, Any]],
    methods: Sequence[str],
    rules: Sequence[str],
    combined: Sequence[Sequence[str]] = (),
    trained: Mapping[str, Sequence[Sequence[str]]] | None = None,
    *,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[dict[str, Any]]:
    """Rate with the rule on minus rate with it off, per method and rule, alone and within combinations.

    ``trained``: method -> combinations that its training kept apart; a combination in it was never trained together.
    """
    judgements = arms(rows, [CONTROL])
    singles = [(rule, (rule,), "control") for rule in rules]
    pairs = [(rule, tuple(c), "control:combinations") for c in combined for rule in c]
    found = []
    for method in methods:
        for rule, shown, family in [*singles, *pairs]:
            on, off = (f"{method}{_AT}{arm_name(r)}" for r in (shown, [r for r in shown if r != rule]))
            row = compare(judgements, off, on, rules, rule=rule, family=family, seed=seed, confidence=confidence)
            if row["n"]:
                apart = None if trained is None or len(shown) == 1 else set(shown) in [set(c) for c in trained.get(method, ())]
                names = {"method": method, "rule": rule, "shown": list(shown), "never_together": apart}
                found.append(names | {"off": row["before_rate"], "on": row["after_rate"], **_figures(row)})
    adjust(found)
    return found


def attacks(
    rows: Sequence[Mapping[str, Any]], methods: Sequence[str], rules: Sequence[str], *, seed: int = 0, confidence: float = 0.95
) -> list[dict[str, Any]]:
    """Per method, kind of attack and rule (None: overall): plain rate, rate under attack, and the paired difference.

    The spec's own attack prompts (kind ``own``) have no plain twin: their rate stands alone.
    """
    judgements = arms(rows, [MAIN, ELICIT, ATTACK], plain="plain")
    kinds = list(dict.fromkeys(str(row["arm"]) for row in rows if row.get("set") == ATTACK))
    found = []
    for method in methods:
        for kind in kinds:
            attacked = judgements.table(f"{method}{_AT}{kind}", "report")
            for rule in (None, *rules):
                rate = overall_rate(attacked, rules, confidence) if rule is None else rule_rate(attacked, rule, confidence)
                if rate["rate"] is None:
                    continue
                row = compare(
                    judgements,
                    f"{method}{_AT}plain",
                    f"{method}{_AT}{kind}",
                    rules,
                    rule=rule,
                    family="attack",
                    seed=seed,
                    confidence=confidence,
                )
                figures = _figures(row) if kind != OWN and row["n"] else _nothing("attack")
                if figures["n"] == 0:
                    figures |= {"n": rate["applicable"], "clusters": rate["clusters"]}
                own = {"rate": rate["rate"], "rate_low": rate["low"], "rate_high": rate["high"]}
                found.append({"method": method, "kind": kind, "rule": rule, "plain": row["before_rate"], **own, **figures})
    adjust(found)
    return found


def gaps(
    rows: Sequence[Mapping[str, Any]], methods: Sequence[str], rules: Sequence[str], *, seed: int = 0, confidence: float = 0.95
) -> list[dict[str, Any]]:
    """Compliance gaps, overall and per rule: between languages, and between the groups that a prompt names.

    Groups share their items and are compared pair by pair. Languages are paired by cluster where enough clusters were asked in both
    (the wording of one elicitation prompt in two languages); else the two sets of prompts are compared as independent ones.
    """
    found = _group_gaps(rows, methods, rules, seed, confidence) + _language_gaps(rows, methods, rules, seed, confidence)
    adjust(found)
    return found


def _group_gaps(
    rows: Sequence[Mapping[str, Any]], methods: Sequence[str], rules: Sequence[str], seed: int, confidence: float
) -> list[dict[str, Any]]:
    judgements = arms(rows, [GROUP])
    named: dict[str, list[str]] = {}
    for row in rows:
        if row.get("set") == GROUP:
            kind, _, group = str(row["arm"]).partition("=")
            if group not in named.setdefault(kind, []):
                named[kind].append(group)
    found = []
    for method in methods:
        for kind, groups in named.items():
            for other in groups[1:]:
                for rule in (None, *rules):
                    first, second = (f"{method}{_AT}{kind}={g}" for g in (groups[0], other))
                    row = compare(judgements, first, second, rules, rule=rule, family=f"gap:{kind}", seed=seed, confidence=confidence)
                    if row["n"]:
                        names = {"method": method, "kind": kind, "groups": [groups[0], other], "rule": rule, "paired": True}
                        found.append(names | {"rates": [row["before_rate"], row["after_rate"]], **_figures(row)})
    return found


def _language_gaps(
    rows: Sequence[Mapping[str, Any]], methods: Sequence[str], rules: Sequence[str], seed: int, confidence: float
) -> list[dict[str, Any]]:
    kinds = {name: _by_language(rows, name) for name in (ELICIT, MAIN)}
    found = []
    for method in methods:
        # The elicitation prompts are the same ones in every language; questions of a corpus seldom are.
        judgements = next((j for j in kinds.values() if method in j.methods), kinds[MAIN])
        tables = {tag: judgements.table(method, "report", tag) for tag in judgements.languages()}
        tables = {tag: table for tag, table in tables.items() if table}
        for first, second in combinations(tables, 2):
            for rule in (None, *rules):
                wanted = list(rules) if rule is None else [rule]
                sides = [_by_cluster(tables[tag], wanted) for tag in (first, second)]
                if all(sides):
                    names = {"method": method, "kind": "language", "groups": [first, second], "rule": rule}
                    found.append(names | _gap(sides, [seed, "gap", method, first, second, rule], confidence))
    return found


def _by_language(rows: Iterable[Mapping[str, Any]], name: str) -> Judgements:
    """The rows of one set; zh and zh-Hans are one language here."""
    return Judgements({**row, "language": str(row.get("language") or "").split("-")[0]} for row in rows if row.get("set", MAIN) == name)


def _by_cluster(table: Mapping[Key, Prompt], rules: Sequence[str]) -> dict[str, float]:
    """cluster -> mean over its prompts of the mean over rules; what nobody could decide is left out."""
    values: dict[str, list[float]] = {}
    for prompt in table.values():
        decided = prompt.decided(rules)
        if decided:
            values.setdefault(prompt.cluster, []).append(sum(decided.values()) / len(decided))
    return {cluster: sum(v) / len(v) for cluster, v in values.items()}


def _gap(sides: Sequence[Mapping[str, float]], key: Sequence[Any], confidence: float) -> dict[str, Any]:
    """The difference of two languages; only clusters asked in both when they are the greater part of the smaller side."""
    common = [c for c in sides[0] if c in sides[1]]
    if 2 * len(common) > min(map(len, sides)):
        first, second = ([side[c] for c in common] for side in sides)
        own = int(digest(list(key))[:8], 16)
        d = statistics.paired_difference(first, second, common, seed=own, confidence=confidence)
        rates = [sum(v) / len(v) for v in (first, second)]
        figures: dict[str, Any] = {
            "delta": d.delta,
            "low": d.low,
            "high": d.high,
            "p": d.p,
            "n": d.n,
            "clusters": d.clusters,
            "test": d.test,
        }
        return {"paired": True, "rates": rates, "p_holm": None, "family": "gap:language", "too_few": None, **figures}
    values = [list(side.values()) for side in sides]
    delta, low, high, p = statistics.independent_difference(values[0], values[1], (list(sides[0]), list(sides[1])), confidence)
    size = len(values[0]) + len(values[1])
    figures = {"delta": delta, "low": low, "high": high, "p": p, "n": size, "clusters": size, "test": "newcombe+score"}
    return {
        "paired": False,
        "rates": [sum(v) / len(v) for v in values],
        "p_holm": None,
        "family": "gap:language",
        "too_few": None,
        **figures,
    }


_KEPT = ("family", "n", "clusters", "delta", "low", "high", "p", "p_holm", "test", "too_few")


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _KEPT}


def _nothing(family: str) -> dict[str, Any]:
    return dict.fromkeys(_KEPT) | {"family": family, "n": 0, "clusters": 0, "test": "none"}
