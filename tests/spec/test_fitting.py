"""Weights from orderings: worked out by hand, against a general solver, and found again where they are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from norma.cli import main
from norma.spec import Spec
from norma.spec.fitting import fit, hinge_weights, in_order, split

SPEC = """
norma: 1
spec: {id: two, version: "1.0.0", source_language: en, languages: [en], license: CC0-1.0}
rules:
- id: calm
  level: guideline
  must: false
  statement: {en: "No exclamation marks."}
  checkers: [{id: a, kind: program, use: regex, roles: [train, report], params: {pattern: "!", expect: absent}}]
  reward: {weight: 1.0}
- id: short
  level: guideline
  must: false
  statement: {en: "At most four words."}
  checkers: [{id: b, kind: program, use: length, roles: [train, report], params: {max_words: 4}}]
"""


@pytest.mark.parametrize(("margin", "ridge", "expected"), [(0.5, 0.1, 0.5), (3.0, 0.5, 2.0), (1.0, 4.0, 0.25)])
def test_one_rule_by_hand(margin: float, ridge: float, expected: float) -> None:
    """With w0 = 0 and every difference 1, the minimum of max(0, m - w) + r w^2 / 2 lies at min(m, 1 / r)."""
    assert hinge_weights(np.ones((5, 1)), [0.0], margin=margin, ridge=ridge) == pytest.approx([expected], abs=2e-3)


def test_what_the_pairs_say_nothing_of_stays() -> None:
    found = hinge_weights([[1.0, 0.0, -1.0]], [1.0, 0.7, 0.2], margin=0.5, ridge=0.5)
    assert found[1] == pytest.approx(0.7) and hinge_weights(np.zeros((0, 2)), [1.0, 2.0], margin=0.5, ridge=0.5) == pytest.approx([1, 2])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0.1, 1.0), st.floats(0.2, 1.0))
def test_equals_a_quadratic_program(seed: int, rules: int, margin: float, ridge: float) -> None:
    """The same problem with a slack for each pair, which has no kink, by scipy's SLSQP."""
    generator = np.random.default_rng(seed)
    pairs = 6
    d, start = generator.uniform(-1, 1, (pairs, rules)), generator.uniform(0, 1.5, rules)
    found = hinge_weights(d, start, margin=margin, ridge=ridge)

    def cost(z: np.ndarray) -> float:
        return float(z[rules:].mean() + ridge / 2 * ((z[:rules] - start) ** 2).sum())

    limits = {"type": "ineq", "fun": lambda z: z[rules:] - margin + d @ z[:rules]}
    solved = minimize(cost, np.concatenate([start, np.full(pairs, 3.0)]), method="SLSQP", bounds=[(0, None)] * (rules + pairs),
                      constraints=[limits], options={"maxiter": 500, "ftol": 1e-12})  # fmt: skip
    ours = np.maximum(0, margin - d @ found).mean() + ridge / 2 * ((found - start) ** 2).sum()
    assert ours <= solved.fun + 1e-4 and (found >= 0).all()


def test_known_weights_are_found_again() -> None:
    generator = np.random.default_rng(1)
    d = generator.uniform(-1, 1, (600, 3))
    truth = np.array([2.0, 0.8, 0.2])
    d *= np.sign(d @ truth)[:, None]  # the better answer is the one that the truth prefers
    prompts = [f"p{i // 2}" for i in range(600)]
    found = fit(d, prompts, [1.0, 1.0, 1.0], ridge=0.01)
    assert found.right.mean() > 0.95 > found.right_before.mean() + 0.05
    assert found.weights.mean() == pytest.approx(1.0) and found.weights[0] > 2 * found.weights[1] > 4 * found.weights[2]


def test_prompts_are_on_one_side() -> None:
    prompts = [f"p{i % 10}" for i in range(40)]
    held = split(prompts, 0.3, 0)
    assert {p for p, h in zip(prompts, held, strict=True) if h}.isdisjoint({p for p, h in zip(prompts, held, strict=True) if not h})
    assert held.sum() == 12 and (held == split(prompts, 0.3, 0)).all() and (held != split(prompts, 0.3, 1)).any()


def test_order_and_ties() -> None:
    assert list(in_order([[1.0, -1.0], [1.0, 0.0], [0.0, 1.0]], [1.0, 1.0])) == [0.5, 1.0, 1.0]
    assert list(in_order([[1.0, -1.0]], [1.0, 2.0])) == [0.0]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """People here mind shouting and not length: every better answer is calm and long."""
    spec, pairs, out = tmp_path / "spec.yaml", tmp_path / "pairs.jsonl", tmp_path / "fitted.yaml"
    spec.write_text(SPEC)
    rows = [{"prompt": f"Say something {i}.", "chosen": "one two three four five six seven", "rejected": "go away!"} for i in range(20)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["spec", "fit", str(spec), str(pairs), "--out", str(out)]) == 0
    assert "14 pairs learnt from, 6 held out (6 prompts)" in capsys.readouterr().out
    weights = {rule.id: Spec.load(out).plan.terms[rule.id].weight for rule in Spec.load(out).rules}
    assert weights["calm"] > 1 > weights["short"] and sum(weights.values()) == pytest.approx(2.0, abs=1e-3)
    pairs.write_text(json.dumps(rows[0]))
    assert main(["spec", "fit", str(spec), str(pairs)]) == 2
    assert "1 different prompts are too few" in capsys.readouterr().err
