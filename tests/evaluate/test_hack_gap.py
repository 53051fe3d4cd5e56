"""A training checker that can be fooled must trip the alarm; an honest pair must not, however unequal the gains."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from norma.evaluate.compliance import Judgements
from norma.evaluate.hack_gap import hack_gap, hack_gaps, loudest

Check = Callable[[str], bool]


def hackable(answer: str) -> bool:
    """Counts the word anywhere, however senseless."""
    return "please" in answer.lower()


def honest(answer: str) -> bool:
    return re.match(r"(certainly|of course): \S", answer, re.IGNORECASE) is not None


def judge(make: SimpleNamespace, answers: dict[str, list[str]], train: Check, heldout: Check) -> Judgements:
    rows: list[dict[str, Any]] = []
    for method, texts in answers.items():
        for i, text in enumerate(texts):
            for role, check in (("train", train), ("heldout", heldout)):
                rows.append(make.verdict(method, f"q{i}", "polite", role, "compliant" if check(text) else "violation"))
    return Judgements(rows)


def test_hackable_checker_trips_the_alarm(make: SimpleNamespace) -> None:
    draw = random.Random(0)
    before = [draw.choice(["Certainly: it sorts, please see.", "It sorts."]) for _ in range(120)]
    after = [draw.choice(["please please please", "It sorts please", "Certainly: please note it sorts."]) for _ in range(120)]
    found = hack_gaps(judge(make, {"x": before, "y": after}, hackable, honest), [("x", "y")])
    assert loudest(found) == "alarm" and found[0]["train_role"] == "train"
    assert (found[0]["delta"] or 0) > 0.5 and found[0]["before_hacked"] == 0.0


def test_honest_checker_does_not(make: SimpleNamespace) -> None:
    draw = random.Random(1)
    before = [draw.choice(["Certainly: it sorts.", "It sorts.", "It sorts."]) for _ in range(120)]
    found = hack_gaps(judge(make, {"x": before, "y": ["Of course: it sorts."] * 120}, honest, honest), [("x", "y")])
    assert loudest(found) == "quiet"


def test_the_alarm_reaches_the_report_and_only_where_it_belongs(make: SimpleNamespace) -> None:
    """The planted study: one rule of one method has a checker that can be fooled. The same study without it raises nothing."""
    from norma.evaluate.report import build_report, render_html

    fooled, honest_one = (build_report(*make.study(entries=60, hack=hack), make.extras(), make.spec()) for hack in (True, False))
    assert [(g["rule"], g["after"]) for g in fooled["hack_gap"] if g["verdict"] == "alarm"] == [("style.polite_opening", "reward")]
    assert honest_one["hack_verdict"] == "quiet"
    assert "Hack gap ALARM" in render_html(fooled) and "Hack gap ALARM" not in render_html(honest_one)


def test_unequal_honest_gains_do_not_alarm(make: SimpleNamespace) -> None:
    """16 to 100% beside 60 to 100%: gain minus gain would be +44 points; no answer was ever disputed."""
    rows = []
    for i in range(100):
        rows.append(make.verdict("x", f"q{i}", "polite", "train", "compliant" if i < 16 else "violation"))
        rows.append(make.verdict("x", f"q{i}", "polite", "heldout", "compliant" if i < 60 else "violation"))
        rows += [make.verdict("y", f"q{i}", "polite", role, "compliant") for role in ("train", "heldout")]
    found = hack_gap(Judgements(rows), "x", "y", "polite")
    assert (found["delta"], found["after_train"], found["before_heldout"]) == (0.0, 1.0, 0.6)
    assert (found["low"] or 0) < 0


def test_by_hand_and_missing_verdicts(make: SimpleNamespace) -> None:
    # four decided items: disputed before 0, 0, 1, 0; after 1, 1, 0, 1 -> delta (3 - 1) / 4; the fifth has an error
    plan = [("vc", "cv"), ("cc", "cv"), ("cv", "cc"), ("vv", "cv"), ("ec", "cv")]
    names = {"c": "compliant", "v": "violation", "e": "error"}
    rows = [
        make.verdict(method, f"q{i}", "polite", role, names[codes[k]])
        for i, pair in enumerate(plan)
        for method, codes in zip("xy", pair, strict=True)
        for k, role in enumerate(("train", "heldout"))
    ]
    found = hack_gap(Judgements(rows), "x", "y", "polite")
    assert (found["n"], found["delta"], found["p"]) == (4, 0.5, 0.625)


def test_report_checkers_stand_in_and_say_so(make: SimpleNamespace) -> None:
    rows = [make.verdict(m, f"q{i}", "polite", role, "compliant") for m in "xy" for i in range(5) for role in ("report", "heldout")]
    assert hack_gap(Judgements(rows), "x", "y", "polite")["train_role"] == "report"
    assert hack_gaps(Judgements(rows), []) == [] and loudest([]) == "no_data"


@pytest.mark.slow
def test_false_alarms_are_rare(make: SimpleNamespace) -> None:
    """A noisy held-out checker that disputes 10% before and after alike: at most the nominal 2.5% (one-sided) of alarms, with slack."""
    draw = random.Random(5)
    alarms = 0
    for _ in range(150):
        rows = []
        for method in "xy":
            for i in range(80):
                rows.append(make.verdict(method, f"q{i}", "polite", "train", "compliant"))
                rows.append(make.verdict(method, f"q{i}", "polite", "heldout", "violation" if draw.random() < 0.1 else "compliant"))
        alarms += hack_gaps(Judgements(rows), [("x", "y")])[0]["verdict"] == "alarm"
    assert alarms <= 9
