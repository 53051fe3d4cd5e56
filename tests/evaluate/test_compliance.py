"""Rates and comparisons against hand-worked numbers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from norma.base.errors import NormaError
from norma.evaluate import statistics
from norma.evaluate.compliance import Judgements, adjust, compare, compare_all, overall_rate, rule_rate


def rows(make: SimpleNamespace, method: str, table: dict[str, dict[str, str]], role: str = "report", **more: Any) -> list[dict[str, Any]]:
    return [make.verdict(method, item, rule, role, status, **more) for item, rules in table.items() for rule, status in rules.items()]


TABLE = {
    "q1": {"a": "compliant", "b": "violation", "c": "not_applicable"},  # mean 1/2
    "q2": {"a": "compliant", "b": "compliant", "c": "compliant"},  # 1
    "q3": {"a": "violation", "b": "error", "c": "not_applicable"},  # 0 (b is missing)
    "q4": {"a": "unsure", "b": "compliant", "c": "violation"},  # 1/2
}


def test_rates_by_hand(make: SimpleNamespace) -> None:
    prompts = Judgements(rows(make, "m", TABLE)).table("m", "report")
    a, b, c = (rule_rate(prompts, r) for r in "abc")
    assert (a["n"], a["applicable"], a["compliant"], a["unsure"], a["error"], a["clusters"]) == (4, 4, 2, 1, 0, 3)
    assert a["rate"] == pytest.approx(2 / 3) and a["bounds"] == [2 / 4, 3 / 4]
    assert (a["low"], a["high"]) == pytest.approx(statistics.wilson(2, 3))
    assert b["rate"] == pytest.approx(2 / 3) and (b["error"], b["bounds"]) == (1, [2 / 4, 3 / 4])
    assert (c["n"], c["applicable"], c["rate"], c["bounds"]) == (4, 2, 0.5, None)


def test_overall_is_the_mean_of_means(make: SimpleNamespace) -> None:
    prompts = Judgements(rows(make, "m", TABLE)).table("m", "report")
    overall = overall_rate(prompts, ["a", "b", "c"])
    assert overall["rate"] == pytest.approx((0.5 + 1 + 0 + 0.5) / 4)
    assert (overall["n"], overall["applicable"], overall["compliant"], overall["unsure"], overall["error"]) == (4, 4, 1, 1, 1)
    assert overall["bounds"] == pytest.approx([(0.5 + 1 + 0 + 1 / 3) / 4, (0.5 + 1 + 0.5 + 2 / 3) / 4])


def test_dodging_does_not_pay(make: SimpleNamespace) -> None:
    """Not applicable leaves the mean; errors are not passes."""
    prompts = Judgements(rows(make, "m", {"q": {"a": "error", "b": "not_applicable"}})).table("m", "report")
    assert overall_rate(prompts, ["a", "b"])["rate"] is None
    assert rule_rate(prompts, "a")["rate"] is None and rule_rate(prompts, "a")["bounds"] == [0.0, 1.0]


def test_several_checkers_must_all_agree(make: SimpleNamespace) -> None:
    two = rows(make, "m", {"q": {"a": "compliant"}}) + rows(make, "m", {"q": {"a": "violation"}})
    assert Judgements(two).table("m", "report")["q", 0].statuses["a"] == "violation"
    half = rows(make, "m", {"q": {"a": "error"}}) + rows(make, "m", {"q": {"a": "compliant"}})
    assert Judgements(half).table("m", "report")["q", 0].statuses["a"] == "error"


def test_roles_do_not_mix(make: SimpleNamespace) -> None:
    both = rows(make, "m", {"q": {"a": "compliant"}}) + rows(make, "m", {"q": {"a": "violation"}}, role="heldout")
    judged = Judgements(both)
    assert rule_rate(judged.table("m", "report"), "a")["rate"] == 1.0
    assert rule_rate(judged.table("m", "heldout"), "a")["rate"] == 0.0


def test_compare_pairs_by_item_and_by_what_both_sides_decided(make: SimpleNamespace) -> None:
    before = {"q1": {"a": "violation"}, "q2": {"a": "violation"}, "q3": {"a": "compliant"}, "q4": {"a": "error"}, "q5": {"a": "violation"}}
    after = {
        "q1": {"a": "compliant"},
        "q2": {"a": "compliant"},
        "q3": {"a": "violation"},
        "q4": {"a": "compliant"},
        "q6": {"a": "compliant"},
    }
    found = compare(Judgements(rows(make, "x", before) + rows(make, "y", after)), "x", "y", ["a"], rule="a")
    assert (found["n"], found["better"], found["worse"], found["test"]) == (3, 2, 1, "tango+mcnemar")
    assert (found["before_rate"], found["after_rate"]) == pytest.approx((1 / 3, 2 / 3))
    assert found["p"] == 1.0 and found["too_few"] is not None and found["non_inferior"] is False


def test_overall_comparison_uses_the_rules_decided_on_both_sides(make: SimpleNamespace) -> None:
    before = {f"q{i}": {"a": "violation", "b": "compliant"} for i in range(8)}
    after = {f"q{i}": {"a": "compliant", "b": "error"} for i in range(8)}
    found = compare(Judgements(rows(make, "x", before) + rows(make, "y", after)), "x", "y", ["a", "b"])
    assert (found["before_rate"], found["after_rate"], found["delta"]) == (0.0, 1.0, 1.0)


def test_samples_of_one_prompt_are_one_cluster(make: SimpleNamespace) -> None:
    many = [make.verdict("m", "q", "a", "report", "compliant", sample=i) for i in range(50)]
    found = rule_rate(Judgements(many).table("m", "report"), "a")
    assert (found["n"], found["clusters"]) == (50, 1) and (found["low"] or 0) < 0.3


def test_families(make: SimpleNamespace) -> None:
    _, verdicts = make.study(40)
    found = compare_all(Judgements(verdicts), [("instruct", "prompt"), ("instruct", "reward")], ["form.full_stop", "length.max_words"])
    sizes: dict[str, int] = {}
    for row in found:
        sizes[row["family"]] = sizes.get(row["family"], 0) + 1
    assert sizes == {"overall": 2, "main": 4, "exploratory": 10, "heldout": 6, "language:en": 6, "language:zh": 6}
    main = [row for row in found if row["family"] == "main"]
    assert [row["p_holm"] for row in main] == pytest.approx(statistics.holm([row["p"] or 0.0 for row in main]))
    assert all((row["p_holm"] or 0) >= (row["p"] or 0) for row in found if row["p"] is not None)


def test_a_comparison_without_data_does_not_count(make: SimpleNamespace) -> None:
    family: list[dict[str, Any]] = [{"family": "f", "p": 0.01, "p_holm": None}, {"family": "f", "p": None, "p_holm": None}]
    adjust(family)
    assert [row["p_holm"] for row in family] == [0.01, None]


def test_bad_rows_are_named() -> None:
    with pytest.raises(NormaError, match="verdict row 1"):
        Judgements([{"method": "m"}])
    with pytest.raises(NormaError, match="'good' is not a verdict"):
        Judgements([{"method": "m", "role": "report", "item": "q", "rule": "a", "status": "good"}])
