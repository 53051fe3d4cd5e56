"""Labels as training rows: the acceptance rule, and the four kinds of rows."""

from __future__ import annotations

from typing import Any

import pytest

from norma.labels import Label
from norma.labels.formats import trl
from norma.labels.formats.batch import Reading
from norma.labels.training import classifier_rows, corrections, edit_ratio, kto_rows, preference_rows, refusal, sft_rows
from norma.spec import Item, Spec, Status, Verdict

SPEC = Spec.parse(
    """
norma: 1
spec: {id: t, version: "1", source_language: en, languages: [en], license: CC0-1.0}
rules:
- {id: top.refuse, level: developer, statement: {en: Refuse.}, applies: "!has(facts.free)"}
- {id: style.polite, level: user, statement: {en: Be polite.}, correct: {max_edit_ratio: 0.6}}
- {id: form.same, level: user, statement: {en: Keep the form.}}
- {id: form.low, level: guideline, statement: {en: Be brief.}}
""",
    checkers=False,
)
ITEM = Item("q", ({"role": "user", "content": "What?"},), "en")
ITEMS = {"q": ITEM}


def label(**more: object) -> Label:
    rule = str(more.get("rule", "style.polite"))
    known = next((r.hash for r in SPEC.rules if r.id == rule), "h" * 64)
    return Label(
        **{
            "item": "q",
            "response": "It adds. ",
            "rule": rule,
            "rule_hash": known,
            "annotator": "ann",
            "verdict": "violation",
            "corrected": "It adds, please.",
            "language": "en",
        }
        | more
    )


def judge(**after: str) -> Any:
    """Verdicts of a pretended checker: everything is kept, except what ``after`` says of the corrected answer."""

    def verdicts(item: Item, response: str, role: str) -> list[Verdict]:
        said = {rule.id: "compliant" for rule in SPEC.rules}
        if response == "It adds. ":
            said["style.polite"] = "violation"
        else:
            said |= {name.replace("_", "."): status for name, status in after.items()}
        return [Verdict(rule, "", item.id, "c", "", role, Status(status), None) for rule, status in said.items()]

    return verdicts


def test_a_correction_that_makes_nothing_worse_is_accepted() -> None:
    assert refusal(SPEC, ITEM, label(), judge=judge()) == ""
    assert refusal(SPEC, ITEM, label(), judge=judge(style_polite="unsure")) == ""  # better than the violation that it was


@pytest.mark.parametrize("status", ["violation", "unsure", "error"])
def test_levels_guard_the_acceptance(status: str) -> None:
    assert refusal(SPEC, ITEM, label(), judge=judge(top_refuse=status)) == "'top.refuse' gets worse"
    assert refusal(SPEC, ITEM, label(), judge=judge(form_same=status)) == "'form.same' gets worse"
    assert refusal(SPEC, ITEM, label(), judge=judge(form_low=status)) == ""  # a lower level may
    free = Item("q", ITEM.messages, "en", {"free": True})
    assert refusal(SPEC, free, label(), judge=judge(top_refuse=status)) == ""  # not active here


def test_other_refusals() -> None:
    assert refusal(SPEC, ITEM, label(corrected="Something else altogether, long and new"), judge=judge()).startswith("the edit is larger")
    assert refusal(SPEC, ITEM, label(corrected="It adds. "), judge=judge()) == "nothing was changed"
    assert refusal(SPEC, ITEM, label(rule_hash="0" * 64), judge=judge()) == "the rule has changed its meaning since"
    assert refusal(SPEC, ITEM, label(rule="gone"), judge=judge()) == "the spec has no such rule"
    # A rule without `correct` has the schema's default, one half.
    assert refusal(SPEC, ITEM, label(rule="form.same", corrected="It adds. No"), judge=judge()) == ""
    assert refusal(SPEC, ITEM, label(rule="form.same", corrected="It adds" * 4), judge=judge()).startswith("the edit is larger")
    assert edit_ratio("abcd", "abcd") == 0 and edit_ratio("abcd", "abef") == pytest.approx(1 - 2 * 2 / 8) and edit_ratio("ab", "cd") == 1


def test_rows_of_corrections() -> None:
    marks = [label(), label(annotator="other"), label(corrected="It adds. "), label(item="unknown"), label(corrected=None)]
    accepted, why = corrections(marks, ITEMS, SPEC, judge=judge())
    assert accepted == [label()] and why == {"nothing was changed": 1, "its input is not in the store": 1}
    (sft,) = sft_rows(accepted, ITEMS)
    assert sft["messages"] == [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "It adds, please."}]
    (pair,) = preference_rows(accepted, ITEMS)
    assert (pair["prompt"], pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == (
        sft["messages"][:1],
        "It adds, please.",
        "It adds. ",
    )
    back = trl.read([("f:1", pair)], Reading())  # the pair is also two labels, of the same rule and meaning
    assert [(m.item, m.response, m.verdict, m.corrected, m.rule_hash) for m in back.labels] == [
        ("q", "It adds, please.", "compliant", None, label().rule_hash),
        ("q", "It adds. ", "violation", "It adds, please.", label().rule_hash),
    ]


def test_kto_rows() -> None:
    marks = [
        label(response="a", verdict="compliant"),
        label(response="a", rule="form.same", verdict="not_applicable"),
        label(response="b", verdict="compliant"),
        label(response="b", rule="form.same"),
        label(response="c", verdict="compliant"),
        label(response="c", rule="form.same", verdict="unsure"),
        label(response="d"),
        label(response="d", annotator="other", verdict="compliant"),
        label(response="e", verdict="not_applicable"),
        label(response="f", item="unknown"),
    ]
    found = kto_rows(marks, ITEMS)
    assert [(r["completion"][0]["content"], r["label"]) for r in found.rows] == [("a", True), ("b", False)]
    assert found.left_out == {"no verdict: unsure, a tie, or nothing applies": 3, "its input is not in the store": 1}
    assert [m.verdict for m in trl.read([("f:1", r) for r in found.rows], Reading(rule="any")).labels] == ["compliant", "violation"]


def test_classifier_rows() -> None:
    marks = [
        *(label(response="a", annotator=name, verdict=v) for name, v in zip("xyz", ("violation", "violation", "compliant"), strict=True)),
        label(response="b", verdict="not_applicable"),
        label(response="c", verdict="unsure"),
    ]
    found = classifier_rows(marks, ITEMS)
    (row,) = found.rows
    assert (row["text"], row["prompt"], row["label"], row["share"], row["marks"]) == ("a", "What?", 1, 2 / 3, 3)
    assert found.left_out == {"not applicable": 1, "no verdict: unsure or a tie": 1}
