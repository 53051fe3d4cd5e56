"""Lint: each finding on a spec that has it, and none on a spec that has not."""

from __future__ import annotations

import pytest

from norma.spec import Spec, lint

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
