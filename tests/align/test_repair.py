"""Whatever the corrector accepts keeps every rule that was asked for and breaks no other."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.check.repair import EDITS, corrector_digest, marks, repair
from norma.spec import Item, Spec, Status

TEXTS = st.one_of(
    st.text(alphabet="ab `.,:;!?'\n您好：。json.dumps", max_size=60),
    st.lists(
        st.sampled_from(["Certainly:", "您好：", "`json.dumps`", "returns", "the text.", "And", "of it,", "I", "you", "which"]), max_size=50
    ).map(" ".join),
)


def item(language: str = "en", entry: str = "json.dumps") -> Item:
    user = (
        f"What does `json.dumps` do?\nEntry: `{entry}(x)`\nText."
        if language == "en"
        else f"`json.dumps` 有什么作用？\n条目：`{entry}(x)`\nText."
    )
    return Item("i", ({"role": "user", "content": user},), language)


def answers(spec: Spec) -> Iterator[tuple[Item, str]]:
    for rule in spec.rules:
        for n, e in enumerate(rule.examples):
            asked = Item(f"{rule.id}/{n}", tuple({"role": m.role, "content": m.content} for m in e.messages), e.lang, e.facts)
            for text in (*e.bad, *e.good):
                yield asked, text


def assert_sound(spec: Spec, asked: Item, text: str, fixed: str, rules: list[str] | None = None) -> None:
    before, after = marks(spec, asked, text), marks(spec, asked, fixed)
    wanted = spec.resolve(asked).active if rules is None else rules
    assert all(after[r] is Status.COMPLIANT for r in wanted if r in after), (text, fixed)
    assert all(after[r] is Status.COMPLIANT for r, s in before.items() if s is Status.COMPLIANT), (text, fixed)


def test_the_specs_own_bad_examples(spec: Spec) -> None:
    tried = repaired = 0
    for asked, text in answers(spec):
        fixed = repair(spec, asked, text)
        found = marks(spec, asked, text)
        if all(found[r] is Status.COMPLIANT for r in spec.resolve(asked).active):
            assert fixed == text, "what is right is left as it is"
            continue
        tried += 1
        if fixed is not None:
            repaired += 1
            assert fixed != text
            assert_sound(spec, asked, text, fixed)
    assert repaired > tried / 3, f"{repaired} of {tried}"


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("entry", ["json.dumps", "json.loads"])
@pytest.mark.parametrize("reference", ["Serialize obj to a JSON formatted str.", "Return the text, all of it; used by dump", "Do not use."])
def test_references_can_be_brought_to_keep_the_rules(spec: Spec, language: str, entry: str, reference: str) -> None:
    asked = item(language, entry)
    fixed = repair(spec, asked, reference)
    assert fixed is not None
    assert_sound(spec, asked, reference, fixed)


@given(text=TEXTS, language=st.sampled_from(["en", "zh"]), entry=st.sampled_from(["json.dumps", "json.loads"]), data=st.data())
@settings(max_examples=120, deadline=None)
def test_an_accepted_repair_keeps_every_rule_asked_for(spec: Spec, text: str, language: str, entry: str, data: st.DataObject) -> None:
    asked = item(language, entry)
    active = spec.resolve(asked).active
    rules = data.draw(st.one_of(st.none(), st.lists(st.sampled_from(active), unique=True)))
    ratio = data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    fixed = repair(spec, asked, text, rules, max_edit_ratio=ratio)
    if fixed is not None:
        assert_sound(spec, asked, text, fixed, rules)
        assert 1 - SequenceMatcher(None, text, fixed, autojunk=False).ratio() <= ratio
        assert repair(spec, asked, fixed, rules) == fixed, "a second time changes nothing"


def test_the_corrector_knows_its_own_provenance() -> None:
    before = corrector_digest()
    EDITS["x"] = EDITS["length"]
    try:
        assert corrector_digest() != before
    finally:
        del EDITS["x"]
    assert corrector_digest() == before


def test_a_long_answer_is_cut_to_the_rules_own_bound(spec: Spec) -> None:
    source = spec.source
    assert source is not None
    text = source.read_text(encoding="utf-8").replace("max_words: 30", "max_words: 12")
    strict = Spec.parse(text)
    long = "Certainly: `json.dumps` writes text, with members on lines, then more lines, then even more of those, and so on, and on."
    fixed = repair(strict, item(), long)
    assert fixed is not None and long.startswith(fixed.removesuffix(".")) and marks(strict, item(), fixed)["form.brief"] is Status.COMPLIANT
    assert repair(spec, item(), long) == long
