"""What arms are asked, and that the same questions are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from norma.evaluate import prompt_gap
from norma.evaluate.prompt_gap import Arm, asks, gap, shared
from norma.generate import Completion, Sampling
from norma.lm import LanguageModel
from norma.spec import Item, Message, Spec
from norma.spec.shown import Layout

SPEC = """
norma: 1
spec: {id: s, version: "1", source_language: en, languages: [en]}
rules:
- id: stop
  statement: {en: "End with a full stop."}
  checkers: [{id: program, kind: program, use: ends_with_stop, roles: [train, report]}]
- id: brief
  statement: {en: "Use few words."}
  checkers: [{id: length, kind: program, use: length, roles: [train, report], params: {max_words: 3, max_characters: 9}}]
- id: other
  applies: 'language == "zh"'
  statement: {en: "Never shown here."}
  checkers: [{id: program, kind: program, use: ends_with_stop, roles: [train, report]}]
"""
ITEMS = [Item(f"q{i}", (Message(role="user", content=f"What is {i}?"),), "en", cluster=f"s{i}") for i in range(8)]


@pytest.fixture(scope="module")
def spec() -> Spec:
    return Spec.parse(SPEC)


def test_what_each_arm_asks(spec: Spec, make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(0)
    plain, rule, applicable, everything = (asks(spec, ITEMS, Arm(model, m), Layout()) for m in ("none", "rule", "applicable", "all"))
    assert [list(a.messages) for a in plain] == [list(i.messages) for i in ITEMS]
    assert [(a.item.id, a.only) for a in rule] == [(i.id, r) for i in ITEMS for r in ("stop", "brief")]
    assert rule[0].messages[0]["content"] == "Rules:\n1. End with a full stop."
    assert applicable[0].messages[0]["content"].count("\n") == 2 and "Never shown" in everything[0].messages[0]["content"]
    assert len(asks(spec, ITEMS, Arm(model, ("other",)), Layout(position="prefix"))[0].messages) == 1


def test_paired_differences(spec: Spec, make_model: Callable[..., LanguageModel], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that does as it is told: its answer keeps just the rules that stand in its prompt."""
    model = make_model(0, max_positions=512)

    def obeys(_: Any, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Completion]:
        answers = []
        for prompt in prompts:
            text = model.tokenizer.decode(prompt)
            words = "a b" if "few words" in text else "a b c d e f"
            answers.append(Completion((), words + ("." if "full stop" in text else ""), "stop"))
        return answers

    monkeypatch.setattr(prompt_gap, "generate", obeys)
    arms = {name: Arm(model, name) for name in ("none", "rule", "applicable", "all")}
    found = gap(spec, ITEMS, arms, "none", Layout(), Sampling(4))  # type: ignore[arg-type]
    assert {m["method"]: m["overall"]["rate"] for m in found["methods"]} == {"none": 0.0, "rule": 1.0, "applicable": 1.0, "all": 1.0}
    assert {m["method"]: m["overall"]["n"] for m in found["methods"]} == dict.fromkeys(arms, 8), "one entry a question in every arm"
    overall = {c["after"]: c for c in found["comparisons"] if c["rule"] is None}
    assert set(overall) == {"rule", "applicable", "all"} and all(c["n"] == 8 and c["delta"] == 1.0 for c in overall.values())
    # Tango's interval and exact McNemar of 8 pairs that all got better: p = 2 / 2^8, Holm over three.
    assert overall["all"]["p"] == pytest.approx(2 / 256) and overall["all"]["p_holm"] == pytest.approx(3 * 2 / 256)
    assert overall["all"]["low"] < 1.0 <= overall["all"]["high"]
    assert {(c["after"], c["rule"]) for c in found["comparisons"] if c["rule"]} == {(a, r) for a in overall for r in ("stop", "brief")}


def test_a_question_that_one_arm_cannot_be_asked_is_asked_of_none(spec: Spec, make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(0, max_positions=96)
    long = Item("long", (Message(role="user", content="word " * 15),), "en")
    arms = {"none": Arm(model), "all": Arm(model, "all")}
    assert shared(spec, [ITEMS[0], long], {"none": arms["none"]}, Layout(), Sampling(4)) == [ITEMS[0], long]
    assert [i.id for i in shared(spec, [ITEMS[0], long], arms, Layout(), Sampling(4))] == ["q0"]
