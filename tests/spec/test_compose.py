"""R(x, y): numbers worked by hand, and the properties the reward must have whatever the numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.spec.compose import Answer, Plan, Term, answer, ascend, compose, costs
from norma.spec.schema import Mode, Objective
from norma.spec.types import Reward, Status, Verdict

W, G, C, NONE = Mode.WEIGHTED, Mode.GATE, Mode.CONSTRAINT, Mode.NONE


def plan(kappa: float = 1.0, **terms: Term) -> Plan:
    return Plan(terms, kappa=kappa)


def one(p: Plan, scores: dict[str, float], violated: set[str] = frozenset(), **kw) -> Reward:
    return compose(p, [Answer(scores, frozenset(violated))], list(p.terms), **kw)[0]


def test_weighted_mean_by_hand() -> None:
    p = plan(a=Term(W, 1.0), b=Term(W, 3.0))
    r = one(p, {"a": 1.0, "b": 0.5})
    assert r.value == pytest.approx(0.625)  # (1 * 1 + 3 * 0.5) / 4
    assert r.parts == {"a": 1.0, "b": 0.5} and r.weights == {"a": 1.0, "b": 3.0} and r.active == ("a", "b")


def test_only_active_rules_count_and_dodging_does_not_pay() -> None:
    # norms.md's example: [1, .6, .5] has mean .70; applicability is the input's, so every answer of the group has the same three rules.
    p = plan(a=Term(W), b=Term(W), c=Term(W))
    assert one(p, {"a": 1.0, "b": 0.6, "c": 0.5}).value == pytest.approx(0.7)
    dodger = compose(p, [Answer({"a": 1.0}, missing={"b": "no verdict", "c": "no verdict"})], ["a", "b", "c"])[0]
    assert dodger.value is None and dodger.masked_reason == "b: no verdict"


def test_gate_is_graded_by_hand() -> None:
    p = plan(2.0, must=Term(G), a=Term(W))
    assert one(p, {"must": 0.25, "a": 1.0}, {"must"}).value == pytest.approx(-2.5)  # -1 - 2 * (1 - 0.25)
    assert one(p, {"must": 0.75, "a": 0.0}, {"must"}).value == pytest.approx(-1.5)
    assert one(p, {"must": 0.75, "a": 0.4}).value == pytest.approx(0.4)  # kept: the gate is open and weighs nothing
    assert one(plan(must=Term(G)), {"must": 1.0}).value == 1.0  # only gates, all kept


def test_the_worst_of_several_gates_counts() -> None:
    p = plan(1.0, m=Term(G), n=Term(G))
    assert one(p, {"m": 0.5, "n": 0.1}, {"m", "n"}).value == pytest.approx(-1.9)


def test_constraints_by_hand() -> None:
    p = plan(a=Term(W), c=Term(C), d=Term(C))
    r = one(p, {"a": 0.8, "c": 0.5, "d": 1.0}, lambdas={"c": 0.6, "d": 0.4})
    assert r.value == pytest.approx(0.25)  # (0.8 - 0.6 * 0.5 - 0.4 * 0) / (1 + 0.6 + 0.4)
    assert r.lambdas == {"c": 0.6, "d": 0.4} and r.terms == pytest.approx({"mean": 0.8, "cost": 0.3})
    assert one(p, {"a": 0.8, "c": 0.5, "d": 1.0}).value == pytest.approx(0.8)  # no multipliers yet


def test_multipliers_rise_above_budget_fall_below_and_stay_without_items() -> None:
    rewards = [
        Reward(0.0, {"c": 0.5}, ("c",)),
        Reward(0.0, {"c": 1.0}, ("c",)),
        Reward(None, {"c": 0.0}, ("c",), "masked"),
        Reward(1.0, {}, ()),
    ]
    assert costs(rewards, "c") == pytest.approx(0.25) and costs(rewards, "d") is None
    budgets = {"c": 0.05, "d": 0.1, "e": 0.5}
    new = ascend({"c": 1.0, "d": 0.7, "e": 0.01}, {"c": 0.25, "d": None, "e": 0.0}, budgets, rate=0.5, maximum=1.05)
    assert new == pytest.approx({"c": 1.05, "d": 0.7, "e": 0.0})  # 1.1 clipped to 1.05; untouched; -0.24 clipped to 0


def test_rules_without_part_never_mask() -> None:
    p = plan(a=Term(W), quiet=Term(NONE))
    assert compose(p, [Answer({"a": 0.5}, missing={"quiet": "error"})], ["a", "quiet"])[0].value == 0.5
    nothing = compose(p, [Answer({})], ["quiet"])[0]
    assert nothing.value is None and "no active rule" in str(nothing.masked_reason)


def verdict(rule: str, status: Status, score: float | None, checker: str = "c", role: str = "train") -> Verdict:
    return Verdict(rule, "h", "i", checker, "d", role, status, score)


def test_verdicts_to_answer_takes_the_lowest_checker_and_masks() -> None:
    two = [verdict("a", Status.COMPLIANT, 0.9), verdict("a", Status.VIOLATION, 0.2, "c2"), verdict("b", Status.COMPLIANT, 1.0)]
    found = answer(two, ["a", "b"])
    assert found.scores == {"a": 0.2, "b": 1.0} and found.violated == {"a"} and not found.missing
    for bad in (Status.UNSURE, Status.ERROR):
        found = answer([*two, verdict("b", bad, None, "c3")], ["a", "b"])
        assert found.scores == {"a": 0.2} and found.missing == {"b": f"{bad} from c3"}
    assert answer([], ["a"]).missing == {"a": "no verdict"}
    with pytest.raises(ValueError, match="held-out"):
        answer([verdict("a", Status.COMPLIANT, 1.0, role="heldout")], ["a"])
    with pytest.raises(ValueError, match="not_applicable"):
        answer([verdict("a", Status.NOT_APPLICABLE, None)], ["a"])


LEX = Plan({"root": Term(W, 1.0, 1), "x": Term(W, 1.0, 9), "y": Term(W, 1.0, 9), "z": Term(W, 1.0, 9)}, Objective.LEXICOGRAPHIC, grid=0.1)


def lex(*scores: dict[str, float], p: Plan = LEX) -> list[float | None]:
    return [r.value for r in compose(p, [Answer(s) for s in scores], list(p.terms))]


def test_lexicographic_ranks_by_hand() -> None:
    keeps_root = {"root": 1.0, "x": 0.0, "y": 0.0, "z": 0.0}
    keeps_three = {"root": 0.0, "x": 1.0, "y": 1.0, "z": 1.0}
    nothing = {"root": 0.0, "x": 0.0, "y": 0.0, "z": 0.0}
    assert lex(keeps_root, keeps_three, nothing) == [1.0, 0.5, 0.0]  # a sum would put the second first: 3 > 1
    assert lex(nothing, keeps_three, nothing) == [0.25, 1.0, 0.25]  # ties share their ranks: (0 + 1/2) / 2
    assert lex(nothing, nothing) == [0.5, 0.5]
    nearly = {**keeps_root, "root": 0.98, "x": 1.0}  # same grid step (0.1) at the root: the guidelines decide
    assert lex(keeps_root, nearly) == [0.0, 1.0]
    assert lex(keeps_root) == [None]


def test_lexicographic_masks_stay_out_of_the_ranking() -> None:
    group = [
        Answer({"root": 1.0, "x": 1, "y": 1, "z": 1}),
        Answer({}, missing={"root": "error from c"}),
        Answer(dict.fromkeys(LEX.terms, 0.0)),
    ]
    rewards = compose(LEX, group, list(LEX.terms))
    assert [r.value for r in rewards] == [1.0, None, 0.0] and rewards[1].masked_reason == "root: error from c"


def test_lexicographic_counts_broken_musts_before_their_scores() -> None:
    p = Plan({"m": Term(G, 1.0, 0), "n": Term(G, 1.0, 0)}, Objective.LEXICOGRAPHIC)
    one_broken, two_broken = Answer({"m": 0.0, "n": 1.0}, frozenset({"m"})), Answer({"m": 0.4, "n": 0.4}, frozenset({"m", "n"}))
    assert [r.value for r in compose(p, [one_broken, two_broken], ["m", "n"])] == [1.0, 0.0]


SCORES = st.fixed_dictionaries({name: st.integers(0, 10).map(lambda i: i / 10) for name in LEX.terms})


@given(st.lists(SCORES, min_size=2, max_size=6))
def test_lexicographic_properties(group: list[dict[str, float]]) -> None:
    values = lex(*group)
    assert sum(v for v in values if v is not None) == pytest.approx(len(group) / 2)
    for a, u in zip(group, values, strict=True):
        for b, v in zip(group, values, strict=True):
            if a["root"] > b["root"]:
                assert u > v  # never outvoted
            if a == b:
                assert u == v  # equal scores, equal ranks


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 5))
def test_gate_properties(worse: float, better: float, other: float, kappa: float) -> None:
    worse, better = sorted((worse, better))
    p = plan(kappa, must=Term(G), a=Term(W))
    low, high = (one(p, {"must": s, "a": other}, {"must"}).value for s in (worse, better))
    assert low is not None and high is not None
    assert -1 - kappa <= low <= high <= -1  # graded, monotone, and below
    kept = one(p, {"must": better, "a": other}).value
    assert kept is not None and kept >= 0 and high < kept  # every answer that keeps the gate
