"""Steering, attacks and gaps against hand-worked tables."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from norma.base.errors import NormaError
from norma.evaluate.compliance import Family, Judgements, compare_all
from norma.evaluate.control import attacks, gaps, steering
from norma.evaluate.report import build_report, render_html

NAMES = {"k": "compliant", "v": "violation", "n": "not_applicable"}


def trial(make: SimpleNamespace, arm: str, marks: str, rule: str = "a", set: str = "control", **more: Any) -> list[dict[str, Any]]:
    """One row a mark: items q0, q1, ... of one arm."""
    return [
        make.verdict("m", f"q{i}@{arm}", rule, "report", NAMES[mark], cluster=f"q{i}", set=set, arm=arm, base=f"q{i}", **more)
        for i, mark in enumerate(marks)
    ]


def plain(make: SimpleNamespace, marks: str, rule: str = "a", **more: Any) -> list[dict[str, Any]]:
    return [make.verdict("m", f"q{i}", rule, "report", NAMES[mark], cluster=f"q{i}", **more) for i, mark in enumerate(marks)]


def test_steering_by_hand(make: SimpleNamespace) -> None:
    rows = [
        *trial(make, "-", "vvvvvvvkkv"), *trial(make, "-", "kkkkkvvvvv", "b"),
        *trial(make, "a", "kkkkkkkkkv"),
        *trial(make, "b", "kkkkkvvvvv", "b"), *trial(make, "b", "vvvvvvvvvv"),
        *trial(make, "a+b", "kkkkkkvvvv"), *trial(make, "a+b", "kkkkkkkvvv", "b"), *trial(make, "a", "vvvvvvvvvv", "b"),
    ]  # fmt: skip
    found = {(r["rule"], tuple(r["shown"])): r for r in steering(rows, ["m"], ["a", "b"], [("a", "b")], {"m": [["b", "a"]]})}
    alone = found["a", ("a",)]
    assert (alone["off"], alone["on"], alone["delta"], alone["n"]) == (0.2, 0.9, 0.7, 10)
    assert alone["p"] == 2 / 2**7 and alone["p_holm"] == pytest.approx(2 * 2 / 2**7) and alone["low"] > 0  # two single rules in the family
    assert (found["b", ("b",)]["delta"], found["b", ("b",)]["p"], found["b", ("b",)]["never_together"]) == (0.0, 1.0, None)
    both = found["a", ("a", "b")]
    # off is the prompt with b alone, not the empty one
    assert (both["off"], both["on"], both["family"], both["never_together"]) == (0.0, 0.6, "control:combinations", True)
    assert found["b", ("a", "b")]["off"] == 0.0 and found["b", ("a", "b")]["on"] == 0.7
    assert steering(rows, ["m"], ["a"], [("a", "b")])[1]["never_together"] is None  # nobody knows how it was trained


def test_attacks_by_hand(make: SimpleNamespace) -> None:
    rows = [
        *plain(make, "kkkkkkkkvv"), *plain(make, "kkkkkkkkkk", "b"),
        *trial(make, "role_play", "kkvvvvvvvv", set="attack"), *trial(make, "role_play", "kkkkkkkkkn", "b", set="attack"),
        make.verdict("m", "r/own#en", "a", "report", "violation", set="attack", arm="own", base=""),
        make.verdict("m", "other", "a", "report", "compliant"),  # a plain prompt that was not attacked stays out of the pairs
    ]  # fmt: skip
    found = {(r["kind"], r["rule"]): r for r in attacks(rows, ["m"], ["a", "b"])}
    row = found["role_play", "a"]
    assert (row["plain"], row["rate"], row["delta"], row["n"]) == (0.8, 0.2, pytest.approx(-0.6), 10) and row["high"] < 0
    assert found["role_play", "b"]["delta"] == 0.0 and found["role_play", "b"]["n"] == 9
    # overall: plain (.9 * 9 items + ...): each prompt's mean over the rules decided on both sides
    overall = found["role_play", None]
    assert overall["delta"] == pytest.approx((-0.5 * 6) / 10) and overall["p_holm"] >= overall["p"]
    assert (found["own", "a"]["rate"], found["own", "a"]["delta"], found["own", "a"]["n"]) == (0.0, None, 1)


def test_group_gaps_by_hand(make: SimpleNamespace) -> None:
    rows = [*trial(make, "gender=woman", "kkkkkkkkkk", set="group"), *trial(make, "gender=man", "kkvvvvvvvv", set="group")]
    rows += [*trial(make, "age=young", "kkkkkvvvvv", set="group"), *trial(make, "age=old", "kkkkkvvvvv", set="group")]
    found = {(r["kind"], r["rule"]): r for r in gaps(rows, ["m"], ["a"])}
    row = found["gender", "a"]
    assert (row["groups"], row["rates"], row["delta"], row["paired"]) == (["woman", "man"], [1.0, 0.2], -0.8, True)
    assert row["p"] == 2 / 2**8 and row["family"] == "gap:gender" and row["p_holm"] == pytest.approx(2 * 2 / 2**8)
    assert found["age", None]["delta"] == 0.0 and found["age", None]["p"] == 1.0


def test_language_gaps_are_paired_where_they_can_be(make: SimpleNamespace) -> None:
    def asked(tag: str, marks: str, shift: int = 0) -> list[dict[str, Any]]:
        return [
            make.verdict("m", f"p{i + shift}#{tag}", "a", "report", NAMES[mark], cluster=f"p{i + shift}", language=tag)
            for i, mark in enumerate(marks)
        ]

    (overall, row) = gaps([*asked("en", "kkkkkkkkkk"), *asked("zh", "kkkvvvvvvv")], ["m"], ["a"])
    assert (row["paired"], row["delta"], row["p"], row["test"]) == (True, -0.7, 2 / 2**7, "tango+mcnemar")
    assert overall["delta"] == -0.7 and overall["rates"] == [1.0, pytest.approx(0.3)]
    apart = gaps([*asked("en", "kkkkkkkkkk"), *asked("zh", "kkkvvvvvvv", shift=100)], ["m"], ["a"])[1]
    assert (apart["paired"], apart["delta"], apart["test"], apart["n"]) == (False, pytest.approx(-0.7), "newcombe+score", 20)
    # Newcombe's method 10 by hand: Wilson of 3/10 is .1078 to .6032, of 10/10 .7225 to 1
    assert apart["low"] == pytest.approx(-0.7 - ((0.3 - 0.1078) ** 2 + 0) ** 0.5, abs=2e-3)
    assert apart["high"] == pytest.approx(-0.7 + ((0.6032 - 0.3) ** 2 + (1 - 0.7225) ** 2) ** 0.5, abs=2e-3)


def test_declared_families(make: SimpleNamespace) -> None:
    rows = [
        make.verdict(m, f"q{i}", r, role, "compliant" if (m == "y") or i < 4 else "violation")
        for m in "xyz" for i in range(12) for r in "ab" for role in ("report", "heldout")
    ]  # fmt: skip
    judgements, pairs = Judgements(rows), [("x", "y"), ("x", "z")]
    declared = {"primary": Family(("y",), ("a",)), "held": Family(("y", "z"), ("b",), "heldout")}
    found = compare_all(judgements, pairs, ["a", "b"], families=declared)
    place = {(c["after"], c["rule"], c["role"]): c["family"] for c in found}
    assert place["y", "a", "report"] == "primary" and place["z", "a", "report"] == place["y", "b", "report"] == "exploratory"
    assert place["y", "b", "heldout"] == "held" and place["y", "a", "heldout"] == "heldout" and place["y", None, "report"] == "overall"
    row = next(c for c in found if c["family"] == "primary")
    assert row["p_holm"] == row["p"]  # a family of one needs no correction
    default = {(c["after"], c["rule"]): c["family"] for c in compare_all(judgements, pairs, ["a"]) if c["role"] == "report"}
    assert default["y", "a"] == "main" and default["y", "b"] == "exploratory"
    for wrong, words in (
        ({"f": Family(("w",), ("a",))}, "names 'w'"),
        ({"f": Family(("y",), ("c",))}, "rule 'c'"),
        ({"overall": Family(("y",), ("a",))}, "Norma's own"),
        ({"f": Family(("y",), ("a",)), "g": Family(("y",), ("a", "b"))}, "two Holm families, 'f' and 'g'"),
    ):
        with pytest.raises(NormaError, match=words):
            compare_all(judgements, pairs, ["a"], families=wrong)


def test_trials_stay_out_of_the_main_tables_and_reach_the_report(make: SimpleNamespace, schema: Any) -> None:
    responses, verdicts = make.study(entries=30)
    extra = [
        v | {"item": f"{v['item']}@rules:{arm}", "set": "control", "arm": arm, "base": v["item"], "status": status}
        for v in verdicts
        if v["method"] == "reward" and v["rule"] == "form.full_stop" and v["role"] == "report"
        for arm, status in (("-", "violation"), ("form.full_stop", "compliant"))
    ]
    asked = [r | {"item": f"{r['item']}@role_play", "set": "attack", "arm": "role_play", "base": r["item"]} for r in responses]
    attacked = [v | {"item": f"{v['item']}@role_play", "set": "attack", "arm": "role_play", "base": v["item"]} for v in verdicts]
    before = build_report(responses, verdicts, make.extras(), make.spec())
    after = build_report([*responses, *asked], [*verdicts, *extra, *attacked], make.extras(), make.spec())
    jsonschema.validate(after, schema)
    for key in ("methods", "comparisons", "hack_gap", "quality", "drift", "examples", "items"):
        assert after[key] == before[key], key
    (row,) = after["control"]
    assert (row["rule"], row["off"], row["on"]) == ("form.full_stop", 0.0, 1.0)
    assert after["attack"] and all(r["delta"] == 0.0 for r in after["attack"])  # the same answers again: no effect
    assert after["data"]["trials"] > 0 and before["control"] == before["attack"] == []
    assert {g["kind"] for g in before["gaps"]} == {"language"}
    assert "角色扮演" in render_html(after)


def test_one_language_under_two_tags_is_no_gap(make: SimpleNamespace) -> None:
    rows = [make.verdict("m", f"q{i}", "a", "report", "compliant", cluster=f"q{i}", language=t) for i, t in enumerate(["zh", "en"] * 6)]
    elicited = [
        make.verdict("m", f"p{i}#{t}", "a", "report", "compliant" if t == "en" else "violation", cluster=f"p{i}", language=t, set="elicit")
        for i in range(8)
        for t in ("en", "zh-Hans")
    ]
    assert {tuple(r["groups"]) for r in gaps(rows, ["m"], ["a"])} == {("en", "zh")}
    (overall, row) = gaps([*rows, *elicited], ["m"], ["a"])  # the same prompts in both languages are the better comparison
    assert (row["groups"], row["paired"], row["delta"], row["n"]) == (["en", "zh"], True, -1.0, 8) and overall["delta"] == -1.0
