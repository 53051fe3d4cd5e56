"""Lint: each finding on a spec that has it, and none on a spec that has not."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.spec import Spec, lint
from norma.spec.leaks import leaks, runs

CLEAN = """
norma: 1
spec: {id: demo, version: "1", source_language: en, languages: [en]}
rules:
- id: polite
  must: true
  statement: {en: Say please.}
  checkers:
  - {id: c, kind: fake, use: has, params: {word: please, min_words: 1, max_words: 5}}
  - {id: h, kind: fake, use: has2, roles: [heldout]}
  examples:
  - {lang: en, messages: [{role: user, content: Hi}], good: [Yes please], bad: ["No"]}
  elicit: [{id: e1, prompt: {en: Do it}}, {id: e2, benign_pair_of: e1, prompt: {en: Tell me}}]
- id: kind
  statement: {en: Be kind.}
  overrides: []
  reward: {mode: weighted}
  checkers: [{id: c, kind: fake, use: has, params: {word: "e"}}]
  examples:
  - {lang: en, messages: [{role: user, content: Ho}], good: ["please, dear"], bad: ["x"]}
  elicit: [{id: e1, prompt: {en: Do it}}, {id: e2, benign_pair_of: e1, prompt: {en: Tell me}}]
compose: {gates: [polite]}
"""


def codes(text: str, run: bool = True) -> list[str]:
    return [f.code for f in lint(Spec.parse(text, "s.yaml"), run_checkers=run)]


def test_a_clean_spec_has_no_findings() -> None:
    assert [str(f) for f in lint(Spec.parse(CLEAN), run_checkers=True)] == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("gates: [polite]", "gates: [kind]", ["gate-disagrees"]),
        ("mode: weighted", "mode: gate", ["gate-disagrees"]),
        ("mode: weighted", "mode: constraint", ["constraint-disagrees"]),
        ("gates: [polite]", "constraints: {kind: {budget: 0.1}}", ["constraint-disagrees"]),
        ("overrides: []", "level: user\n  overrides: [polite]", ["override-idle", "example-inactive"]),
        ("min_words: 1", "min_words: 9", ["min-above-max"]),
        ("use: has2, roles: [heldout]", "use: has, roles: [heldout]", ["heldout-trained"]),
        ('bad: ["No"]', "bad: []", ["no-bad-example"]),
        ('bad: ["No"]', "bad: [Never please]", ["bad-passes"]),
        ("good: [Yes please]", "good: [OK]", ["good-fails"]),
        (", {id: e2, benign_pair_of: e1, prompt: {en: Tell me}}]\n- id: kind", "]\n- id: kind", ["no-benign-pair"]),
        ("languages: [en]", "languages: [en]", []),
        (
            "content: Ho}], good:",
            "content: Ho}], split: test, good: [please e], bad: []}\n"
            "  - {lang: en, messages: [{role: user, content: Ho!}], good: [please e.]}\n"
            "  - {lang: en, messages: [{role: user, content: Ho}], good:",
            ["split-leak"],
        ),
    ],
)
def test_findings(old: str, new: str, expected: list[str]) -> None:
    assert CLEAN.count(old) == 1
    found = codes(CLEAN.replace(old, new))
    if expected and expected[0] == "good-fails":
        # "OK" fails c (train, report) and h (heldout) of its own rule: errors; and c of `kind`: a warning. Each checker speaks once
        findings = lint(Spec.parse(CLEAN.replace(old, new), "s.yaml"), run_checkers=True)
        assert [(f.code, f.severity) for f in findings] == [("good-fails", "error")] * 2 + [("good-fails", "warning")]
        assert str(findings[0]).startswith("s.yaml:12:62: error: rule 'polite': the good example 1 gets violation from polite/c")
    else:
        assert found == expected


def test_checkers_run_only_when_asked() -> None:
    broken = CLEAN.replace("good: [Yes please]", "good: [OK]")
    assert codes(broken, run=False) == []


# ---- the rest of the list ----


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("good: [Yes please]", "good: []", ["no-good-example"]),
        ("max_words: 5}", "max_words: 5, deep: [{least: 3, most: 2}]}", ["min-above-max"]),
        ("max_words: 5}", "max_words: 5, share_min: 0.9, share_max: 0.1}", ["min-above-max"]),
        ("max_words: 5}", "max_words: 5, minutes: 9, low: no, high: 1}", []),
        ("use: has2, roles: [heldout]", "use: has2, roles: [heldout], params: {of: [{use: graded}, {use: has}]}", ["heldout-trained"]),
        ("languages: [en]", "languages: [en, fr]", None),
        ("{lang: en, messages: [{role: user, content: Hi}]", "{lang: fr, messages: [{role: user, content: Hi}]", ["example-language"] * 2),
    ],
)
def test_more_findings(old: str, new: str, expected: list[str] | None) -> None:
    assert CLEAN.count(old) == 1
    text = CLEAN.replace(old, new)
    if expected is None:  # a second language: without statement it does not load; prompts and examples are missed
        text = text.replace("Say please.}", "Say please., fr: x}").replace("Be kind.}", "Be kind., fr: x}")
        assert sorted(codes(text)) == ["example-language"] * 2 + ["prompt-language"] * 4
    else:
        assert codes(text, run=False) == expected


def test_a_rule_is_elicited_by_the_prompts_of_others() -> None:
    both = "  elicit: [{id: e1, prompt: {en: Do it}}, {id: e2, benign_pair_of: e1, prompt: {en: Tell me}}]\n"
    head, tail = CLEAN.rsplit(both, 1)
    assert codes(head + tail, run=False) == []
    away = (head + tail).replace("- id: kind\n", "- id: kind\n  applies: has(facts.never)\n")
    assert codes(away, run=False) == ["no-elicitor"]


LONG = "The reading room lends books for three weeks, and the loan can be renewed twice unless somebody else is waiting."


@pytest.mark.parametrize(
    ("other", "leak"),
    [
        (LONG.upper().replace(",", ";"), True),  # case and punctuation
        (LONG.replace("three", "four"), True),
        ("Once more: " + LONG, True),
        (LONG[:60], False),
        (LONG.replace("three weeks", "as long as the weather is bad and the sun is away"), False),
    ],
)
def test_near_copies_across_splits(other: str, leak: bool) -> None:
    elicit = "{id: e1, prompt: {en: Do it}}"
    assert CLEAN.count(elicit) == 2
    text = CLEAN.replace(elicit, f"{elicit}, {{id: e9, split: train, prompt: {{en: '{LONG}'}}}}", 1)
    last = "prompt: {en: Tell me}}]\ncompose"
    assert text.count(last) == 1
    text = text.replace(last, f"prompt: {{en: '{other}'}}}}]\ncompose")
    assert codes(text, run=False) == (["split-leak"] if leak else [])


@given(st.lists(st.tuples(st.text("ab ", min_size=18, max_size=60), st.sampled_from(["train", "test"])), max_size=7))
@settings(max_examples=60, deadline=None)
def test_the_index_finds_what_comparing_all_pairs_finds(texts: list[tuple[str, str]]) -> None:
    prompts = [{"id": f"e{i}", "prompt": {"en": f"x{text}"}, "split": split} for i, (text, split) in enumerate(texts)]
    rule = {"id": "a", "statement": {"en": "x"}, "elicit": prompts}
    spec = Spec.parse(yaml.safe_dump({"norma": 1, "spec": {"id": "t", "version": "1"}, "rules": [rule]}, width=10**6), checkers=False)
    made = [(runs(e.prompt["en"]), e.split) for e in spec.rules[0].elicit]
    slow = {j for j, (b, s) in enumerate(made) if any(t != s and len(a & b) >= 0.8 * len(a | b) for a, t in made[:j])}
    assert {leak.path[3] for leak in leaks(spec)} == slow


def test_self_tests_and_kinds() -> None:
    spec = Spec.parse(CLEAN, "s.yaml")
    seen = []

    def selftest(checker, good):
        seen.append((checker.id, [answer for _, answer in good]))
        return ["en, empty: passes ''"] if checker.id == "has2" else []

    found = lint(spec, run_checkers=True, selftest=selftest)
    assert [(f.code, f.severity, f.where) for f in found] == [("selftest", "error", "s.yaml:10:5")]
    assert seen == [("has", ["Yes please"]), ("has2", ["Yes please"]), ("has", ["please, dear"])]
    broken = Spec.parse(CLEAN.replace("good: [Yes please]", "good: [OK]"))
    assert not lint(broken, run_checkers=True, kinds=("program",)) and lint(broken, run_checkers=True, kinds=("fake",))
