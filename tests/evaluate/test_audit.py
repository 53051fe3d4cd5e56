"""Rogan-Gladen against published examples and simulated coverage; which marks count as gold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from norma.evaluate.audit import audits, corrected_rate, gold_rows, rogan_gladen
from norma.evaluate.compliance import Judgements


def test_published() -> None:
    # brucellosis, 23 of 150 cows, Se .96, Sp .89: 5.1 per 100 (the manual of the R package epiR)
    assert rogan_gladen(23 / 150, 0.96, 0.89) == pytest.approx(0.051, abs=5e-4)
    # Lang and Reiczigel 2014, example 1: 4060 of 11284, Se 178/179, Sp 358/359: .349 to .372
    found = corrected_rate(4060 / 11284, 11284, 178 / 179, 179, 358 / 359, 359)
    assert (found.low, found.high) == pytest.approx((0.349, 0.372), abs=5e-4)


def test_a_perfect_large_audit_leaves_the_rate() -> None:
    found = corrected_rate(0.8, 100, 1.0, 10**9, 1.0, 10**9)
    assert found.rate == pytest.approx(0.8) and 0.70 < found.low < 0.72 and 0.86 < found.high < 0.88  # Agresti and Coull's interval


def test_chance_tells_nothing() -> None:
    with pytest.raises(ValueError):
        rogan_gladen(0.5, 0.4, 0.6)
    with pytest.raises(ValueError):
        corrected_rate(0.5, 100, 0.4, 50, 0.5, 50)


@pytest.mark.parametrize(("true", "se", "sp"), [(0.8, 0.9, 0.7), (0.95, 0.95, 0.8), (0.5, 0.8, 0.9)])
def test_coverage_by_simulation(true: float, se: float, sp: float) -> None:
    """300 judged answers, a fair audit of 100 truly compliant and 60 violating ones: the interval holds the truth about 95 times of 100."""
    random = np.random.default_rng(5)
    trials, held, naive = 1500, 0, 0
    for _ in range(trials):
        seen = random.binomial(300, true * se + (1 - true) * (1 - sp)) / 300
        found = corrected_rate(seen, 300, random.binomial(100, se) / 100, 100, random.binomial(60, sp) / 60, 60)
        held += found.low <= true <= found.high
        naive += abs(seen - true) <= 1.96 * np.sqrt(seen * (1 - seen) / 300)
    assert held / trials > 0.93
    assert naive / trials < held / trials - 0.05


def test_audit_rows(make: SimpleNamespace) -> None:
    """Ten answers: eight truly kept, of which the checker passes six; two truly broken... too few to correct, and said so."""
    rows: list[dict[str, Any]] = []
    for i in range(60):
        true = i % 3 != 0  # 40 kept, 20 broken
        passed = i % 30 != 1 if true else i % 15 == 0  # misses 2 of 40, passes 4 of 20
        rows.append(make.verdict("m", f"q{i}", "a", "report", "compliant" if passed else "violation"))
        if i < 45:
            rows.append(make.verdict("m", f"q{i}", "a", "gold", "compliant" if true else "violation"))
        rows.append(make.verdict("m", f"q{i}", "b", "report", "compliant"))
    rows += [make.verdict("m", f"q{i}", "b", "gold", "compliant") for i in range(9)]
    a, b = audits(Judgements(rows), ["m"], ["a", "b", "c"])
    assert (a["n"], a["n_sensitivity"], a["n_specificity"]) == (45, 30, 15)
    assert a["sensitivity"] == pytest.approx(28 / 30) and a["specificity"] == pytest.approx(12 / 15)
    assert a["raw"] == pytest.approx(42 / 60)
    assert a["rate"] == pytest.approx((0.7 + 0.8 - 1) / (28 / 30 + 0.8 - 1)) and a["low"] < 40 / 60 < a["high"]
    assert (b["rate"], b["note"], b["raw"]) == (None, "too_few", 1.0)


def test_which_marks_count() -> None:
    def label(text: str, verdict: str, **more: Any) -> dict[str, Any]:
        return {"item": "q", "response": text, "rule": "a", "rule_hash": "h", "verdict": verdict, "source": "human", "key": text} | more

    labels = [
        label("x", "compliant"),
        label("x", "violation", key="2"),
        label("x", "compliant", key="3", supersedes="2"),  # two current marks of two
        label("y", "violation", queue="rare"),  # chosen because a checker doubted it: no fair draw
        label("z", "violation", rule_hash="old"),  # another meaning
        label("u", "compliant", source="checker"),
        label("w", "compliant"),
        label("w", "violation", key="5"),
        label("v", "violation", key="6"),
        label("v", "compliant", key="7", gold=True),
    ]
    answers = [{"method": m, "item": "q", "response": t, "cluster": "c"} for m in "mn" for t in "xyzuwv"]
    found = gold_rows(labels, answers, {"a": "h"})
    assert [(r["method"], r["status"]) for r in found] == [(m, s) for s in ("compliant", "unsure", "compliant") for m in "mn"]
    assert {r["role"] for r in found} == {"gold"} and {r["cluster"] for r in found} == {"c"}
