"""How far a checker's rate can be trusted: corrected for the errors that people found in an audit.

    labels (uniform audit stream, gold) ─→ `gold_rows` ─→ verdict rows of role gold, beside the checker's on the same answers
    checker's verdicts x gold verdicts  ─→ sensitivity, specificity of the checker, per method ─┐
    checker's rate over all answers     ────────────────────────────────────────────────────────┴─→ `rogan_gladen` ─→ corrected rate

"Positive" is "compliant": sensitivity is the share of truly compliant answers that the checker passes, specificity the share of true
violations that it catches. Both are estimated per method: a checker errs otherwise on other models' answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import norm

from norma.evaluate import statistics
from norma.evaluate.compliance import Judgements

LEAST = 5  # true compliant and true violating answers in the audit; with fewer nothing is corrected
UNBIASED = ("", "uniform")  # queues whose answers are a fair draw; others were chosen BECAUSE of what a checker said


@dataclass(frozen=True)
class Corrected:
    """A rate corrected for a test's errors. The point is clipped to [0, 1], as is the interval."""

    rate: float
    low: float
    high: float


def rogan_gladen(rate: float, sensitivity: float, specificity: float) -> float:
    """The true rate behind an apparent one, not clipped: (p + Sp - 1) / (Se + Sp - 1) (Rogan and Gladen 1978, Am. J. Epidemiol. 107)."""
    youden = sensitivity + specificity - 1
    if youden <= 0:
        raise ValueError("a test that is no better than chance tells nothing")
    return (rate + specificity - 1) / youden


def corrected_rate(
    rate: float, n: float, sensitivity: float, n_sensitivity: float, specificity: float, n_specificity: float, confidence: float = 0.95
) -> Corrected:
    """Rogan and Gladen's estimate with the interval of Lang and Reiczigel (2014, Prev. Vet. Med. 113, 13-22).

    The interval carries the uncertainty of all three estimates; each is pulled towards the middle in the manner of Agresti and Coull,
    and its centre is shifted, which holds the nominal level down to samples of about 30.
    """
    z = float(norm.ppf(1 - (1 - confidence) / 2))
    p = (n * rate + z * z / 2) / (n + z * z)
    se = (n_sensitivity * sensitivity + 1) / (n_sensitivity + 2)
    sp = (n_specificity * specificity + 1) / (n_specificity + 2)
    if se + sp <= 1:
        raise ValueError("a test that is no better than chance tells nothing")
    estimate = (p + sp - 1) / (se + sp - 1)
    v_se, v_sp = se * (1 - se) / (n_sensitivity + 2), sp * (1 - sp) / (n_specificity + 2)
    shift = 2 * z * z * (estimate * v_se - (1 - estimate) * v_sp)
    spread = math.sqrt(p * (1 - p) / (n + z * z) + estimate**2 * v_se + (1 - estimate) ** 2 * v_sp) / (se + sp - 1)
    point = min(1.0, max(0.0, rogan_gladen(rate, sensitivity, specificity)))
    low, high = (min(1.0, max(0.0, estimate + shift + sign * z * spread)) for sign in (-1, 1))
    return Corrected(point, min(low, point), max(high, point))


def audits(judgements: Judgements, methods: Sequence[str], rules: Sequence[str], confidence: float = 0.95) -> list[dict[str, Any]]:
    """One row per method and rule with gold marks: raw rate, the checker's errors, the corrected rate or why there is none."""
    rows = []
    for method in methods:
        checked, gold = judgements.table(method, "report"), judgements.table(method, "gold")
        for rule in rules:
            both = [(p.decided([rule]), gold[key].decided([rule])) for key, p in checked.items() if key in gold]
            pairs = [(a[rule], b[rule]) for a, b in both if rule in a and rule in b]
            if pairs:
                rows.append({"method": method, "rule": rule, **_audit(checked, rule, pairs, confidence)})
    return rows


def _audit(checked: Mapping[Any, Any], rule: str, pairs: Sequence[tuple[float, float]], confidence: float) -> dict[str, Any]:
    decided = [(p.decided([rule])[rule], p.cluster) for p in checked.values() if rule in p.decided([rule])]
    values, clusters = [v for v, _ in decided], [c for _, c in decided]
    raw, n = sum(values) / len(values), statistics.effective_n(values, clusters, confidence)
    positive, negative = [c for c, g in pairs if g == 1.0], [c for c, g in pairs if g == 0.0]
    sensitivity = sum(positive) / len(positive) if positive else None
    specificity = 1 - sum(negative) / len(negative) if negative else None
    note, found = "", None
    if sensitivity is None or specificity is None or min(len(positive), len(negative)) < LEAST:
        note = "too_few"
    else:
        try:
            found = corrected_rate(raw, n, sensitivity, len(positive), specificity, len(negative), confidence)
        except ValueError:
            note = "chance"
    return {
        "n": len(pairs),
        "raw": raw,
        "sensitivity": sensitivity,
        "n_sensitivity": len(positive),
        "specificity": specificity,
        "n_specificity": len(negative),
        "rate": found and found.rate,
        "low": found and found.low,
        "high": found and found.high,
        "note": note,
    }


def gold_rows(
    labels: Iterable[Mapping[str, Any]], responses: Sequence[Mapping[str, Any]], hashes: Mapping[str, str]
) -> list[dict[str, Any]]:
    """People's marks on exactly these answers, as verdict rows of role gold.

    A mark counts where item, the answer's text and the rule's meaning (``hashes``: rule -> meaning hash) are the same, a person made
    it, and it was asked for by a fair draw. Of several marks on one answer the gold one stands, else the majority; a tie is unsure.
    """
    answered: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in responses:
        answered.setdefault((str(row["item"]), str(row["response"])), []).append(row)
    marks: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    kept = list(labels)
    superseded = {label.get("supersedes") for label in kept if label.get("supersedes")}
    for label in kept:
        fair = label.get("queue", "") in UNBIASED
        if label.get("source") != "human" or not fair or label.get("key") in superseded or hashes.get(label["rule"]) != label["rule_hash"]:
            continue
        marks.setdefault((str(label["item"]), str(label["response"]), str(label["rule"])), []).append(label)
    rows = []
    for (item, text, rule), found in marks.items():
        chosen = [m for m in found if m.get("gold")] or found
        counted = [str(m["verdict"]) for m in chosen]
        most = max(set(counted), key=counted.count)
        status = most if 2 * counted.count(most) > len(counted) else "unsure"
        for answer in answered.get((item, text), []):
            rows.append(
                {
                    "rule": rule,
                    "rule_hash": hashes[rule],
                    "item": item,
                    "checker": "people",
                    "checker_digest": "",
                    "role": "gold",
                    "status": status,
                    "score": None,
                    "evidence": [],
                    "note": f"{len(chosen)} marks",
                    "margin": None,
                    "method": answer["method"],
                    "cluster": answer.get("cluster") or item,
                    "language": answer.get("language", ""),
                }
            )
    return rows
