"""Which rules stand in a prompt, and how."""

from __future__ import annotations

import pytest

from norma.base.errors import NormaError
from norma.spec import Item, Message, Spec
from norma.spec.shown import Layout, Shown, chosen, laid_out, ordered, told

SPEC = """
norma: 1
spec: {id: s, version: "1", source_language: en, languages: [en, zh-Hans]}
levels: [root, user]
rules:
- {id: a, level: user, statement: {en: "Rule A.", zh-Hans: "甲。"}}
- {id: b, level: root, statement: {en: "Rule B.", zh-Hans: "乙。"}}
- {id: c, level: user, must: true, statement: {en: "Rule C.", zh-Hans: "丙。"}}
- {id: d, level: root, applies: 'language == "zh"', statement: {en: "Rule D.", zh-Hans: "丁。"}}
"""


@pytest.fixture(scope="module")
def spec() -> Spec:
    return Spec.parse(SPEC)


def item(number: int = 0, language: str = "en") -> Item:
    return Item(f"i{number}", (Message(role="user", content="Who?"),), language)


def test_choices(spec: Spec) -> None:
    assert chosen(spec, item(), "none") == [] and chosen(spec, item(), "applicable") == ["a", "b", "c"]
    assert chosen(spec, item(), "all") == ["a", "b", "c", "d"] and chosen(spec, item(language="zh"), "applicable") == ["a", "b", "c", "d"]
    assert chosen(spec, item(), ["c", "a"]) == ["c", "a"]
    with pytest.raises(NormaError, match="unknown rule 'e'"):
        chosen(spec, item(), ["e"])


def test_a_drawn_rule_is_the_items_own(spec: Spec) -> None:
    drawn = [chosen(spec, item(i), "rule", seed=1) for i in range(60)]
    assert all(len(d) == 1 for d in drawn) and {d[0] for d in drawn} == {"a", "b", "c"}
    assert drawn == [chosen(spec, item(i), "rule", seed=1) for i in range(60)] != [chosen(spec, item(i), "rule", seed=2) for i in range(60)]


def test_orders(spec: Spec) -> None:
    rules = ["c", "a", "d", "b"]
    assert ordered(spec, item(), rules, None) == rules and ordered(spec, item(), rules, "file") == ["a", "b", "c", "d"]
    assert ordered(spec, item(), rules, "reversed") == ["d", "c", "b", "a"]
    assert ordered(spec, item(), rules, "authority") == ["b", "d", "c", "a"], "root before user, a must before what is weighed"
    seen = {tuple(ordered(spec, item(i), rules, "shuffled")) for i in range(200)}
    assert len(seen) == 24 and all(sorted(s) == sorted(rules) for s in seen)


def test_layout(spec: Spec) -> None:
    english = told(spec, item(), Shown(rules=["a", "b"]))
    assert english == [{"role": "system", "content": "Rules:\n1. Rule A.\n2. Rule B."}, {"role": "user", "content": "Who?"}]
    chinese = told(spec, item(), Shown(rules=["a"], language="zh-Hans", position="prefix"))
    assert chinese == [{"role": "user", "content": "规则：\n1. 甲。\n\nWho?"}]
    assert told(spec, item(), Shown(rules="none")) == list(item().messages)
    assert laid_out(spec, item(language="zh"), ["b"], Layout())[0]["content"] == "规则：\n1. 乙。"
