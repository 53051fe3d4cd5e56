"""Pointers at the end, no courtesy at the beginning, and the spec that asks for both; every verdict was set by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from norma.check import build, selftest
from norma.check.repair import marks, repair
from norma.spec import Item, Message, Spec, Status
from norma.spec.lint import lint

SPEC = Path(__file__).parents[2] / "recipes" / "terse-docs.spec.yaml"
NO: dict[str, Any] = {"present": False}

# (checker, parameters, language, answer, complies, score or None)
TABLE: list[tuple[str, dict[str, Any], str, str, bool, float]] = [
    ("closing_pointer", {}, "en", "Writes obj as text (see the entry).", True, 1.0),
    ("closing_pointer", {}, "en", "Writes obj as text; SEE THE ENTRY", True, 1.0),
    ("closing_pointer", {}, "en", "Writes obj as text, as the entry explains.", True, 1.0),
    ("closing_pointer", {}, "en", "Writes obj as text see the entry.", False, 0.5),
    ("closing_pointer", {}, "en", "Writes obj as text. See the entry.", False, 0.5),
    ("closing_pointer", {}, "en", "Writes obj as text.", False, 0.0),
    ("closing_pointer", {}, "en", "See the entry: it writes obj as text.", False, 0.0),
    ("closing_pointer", {}, "en", "Writes obj as text (oversee the entry).", False, 0.0),
    ("closing_pointer", {}, "en", "Writes text (see the entry) (see the entry).", False, 0.0),
    ("closing_pointer", {}, "en", "(see the entry)", False, 0.0),
    ("closing_pointer", {}, "en", "返回文本（详见条目）。", False, 0.0),
    ("closing_pointer", {}, "zh", "返回文本（详见条目）。", True, 1.0),
    ("closing_pointer", {}, "zh", "Writes obj as text（详见条目）。", True, 1.0),
    ("closing_pointer", {}, "zh", "返回文本，请参阅条目。", True, 1.0),
    ("closing_pointer", {}, "zh", "返回文本详见条目。", False, 0.5),
    ("closing_pointer", {}, "zh", "返回文本。详见条目。", False, 0.5),
    ("closing_pointer", {}, "zh", "Writes obj as text (see the entry).", False, 0.0),
    ("closing_pointer", {}, "zh", "详见条目。", False, 0.0),
    ("closing_pointer", {"phrases": {"en": ["q.v."]}}, "en", "Writes obj as text (see the entry).", False, 0.0),
    ("points_in_last_clause", {}, "en", "Writes obj as text (see the entry).", True, 1.0),
    ("points_in_last_clause", {}, "en", "Writes obj as text; more is in the docs.", True, 1.0),
    ("points_in_last_clause", {}, "en", "Writes obj as text.", False, 0.0),
    ("points_in_last_clause", {}, "en", "Writes obj as text (see the entry for all that there is to be said of it here).", False, 0.4),
    ("points_in_last_clause", {}, "en", "See the entry: writes obj as text (see the entry).", False, 0.3),
    ("points_in_last_clause", {}, "en", "Writes obj as text (not in the entry, nor more in the docs, see no entry).", False, 0.2),
    ("points_in_last_clause", {}, "en", "a (see the entry).", False, 0.3),
    ("points_in_last_clause", {}, "en", "`json.dumps` (see the entry).", False, 0.3),
    ("points_in_last_clause", {}, "zh", "返回文本（详见条目）。", True, 1.0),
    ("points_in_last_clause", {}, "zh", "返回文本，更多细节可查文档。", True, 1.0),
    ("points_in_last_clause", {}, "zh", "返回文本。", False, 0.0),
    ("points_in_last_clause", {}, "zh", "返回文本，条目没有提到可见的内容。", False, 0.2),
    ("polite_opening", NO, "en", "Writes obj as text.", True, 1.0),
    ("polite_opening", NO, "en", "Surely: it adds.", True, 1.0),
    ("polite_opening", NO, "en", "Certainly: it adds.", False, 0.0),
    ("polite_opening", NO, "en", "您好：it adds.", False, 0.0),
    ("polite_opening", NO, "en", "Certainly it adds.", False, 0.5),
    ("polite_opening", NO, "zh", "返回总和。", True, 1.0),
    ("polite_opening", NO, "zh", "好的，返回总和。", False, 0.0),
    ("polite_opening", NO, "zh", "Of course: 返回总和。", False, 0.0),
    ("courtesy_marks", NO, "en", "Makes sure that obj is text.", True, 1.0),
    ("courtesy_marks", NO, "en", "Writes obj as text, thank you.", False, 0.0),
    ("courtesy_marks", NO, "en", "Writes obj as text, 希望有用.", False, 0.4),
    ("courtesy_marks", NO, "zh", "发出请求并返回文本。", True, 1.0),
    ("courtesy_marks", NO, "zh", "返回文本，谢谢。", False, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("use", "params", "language", "answer", "complies", "score"), TABLE)
def test_verdicts(
    ask: Callable[..., Item], use: str, params: dict[str, Any], language: str, answer: str, complies: bool, score: float
) -> None:
    checker = build(use, params, "spec.yaml:1:1")
    finding = checker.check(ask("json.dumps", language), answer)
    assert (finding.status is Status.COMPLIANT) == complies, finding
    assert finding.score == pytest.approx(score), finding
    assert selftest(checker) == []


@pytest.fixture(scope="module")
def terse() -> Spec:
    return Spec.load(SPEC)


def test_the_spec_of_terse_answers_is_clean(terse: Spec) -> None:
    assert [str(finding) for finding in lint(terse, run_checkers=True)] == []


def test_its_examples_pass_and_fail_as_declared(terse: Spec) -> None:
    """A good example keeps all active rules under all roles, a bad one breaks its own; every rule has a second, other checker."""
    for rule in terse.rules:
        uses = {role: {c.id for c in terse.checkers(role).get(rule.id, ())} for role in ("train", "report", "heldout")}
        assert uses["train"] == uses["report"] and uses["heldout"] and not uses["train"] & uses["heldout"], rule.id
        assert {e.lang for e in rule.examples} == {"en", "zh-Hans"} and rule.correct is not None
        for example in rule.examples:
            item = Item(rule.id, tuple(Message(role=m.role, content=m.content) for m in example.messages), example.lang)
            for answer in example.good:
                for role in ("train", "heldout"):
                    assert set(marks(terse, item, answer, role).values()) <= {Status.COMPLIANT, Status.NOT_APPLICABLE}, (rule.id, answer)
            assert all(marks(terse, item, answer)[rule.id] is Status.VIOLATION for answer in example.bad), rule.id


def test_the_two_house_styles_contradict_each_other(terse: Spec, spec: Spec, ask: Callable[..., Item]) -> None:
    polite, plain = "Certainly: `json.dumps` turns obj into text.", "Turns obj into text (see the entry)."
    assert marks(spec, ask(), polite)["style.polite"] is Status.COMPLIANT is marks(terse, ask(), plain)["style.no-courtesy"]
    assert marks(terse, ask(), polite)["style.no-courtesy"] is Status.VIOLATION is marks(spec, ask(), plain)["style.polite"]


# (language, entry, answer, corrected): the pointer goes before the stop, stays when words are dropped, and replaces a foreign one.
CORRECTED = [
    ("en", None, "Serialize obj to a JSON formatted str.", "Serialize obj to a JSON formatted str (see the entry)."),
    ("en", None, "Certainly: of course, writes obj as text!", "writes obj as text (see the entry)."),
    ("zh", None, "Serialize obj to text. It is fast.", "Serialize obj to text（详见条目）。"),
    ("zh", None, "返回文本 (see the entry).", "返回文本（详见条目）。"),
    ("en", None, "Write obj as text, in which every member has a line of its own and is sorted.", "Write obj as text (see the entry)."),
    (
        "en",
        None,
        "Recalculate the set of abstract methods of an abstract class once more today (see the entry).",
        "Recalculate the set of abstract methods (see the entry).",
    ),
    ("en", "json.loads", "Writes obj as text.", "The entry does not say what `json.dumps` does."),
    ("zh", "json.loads", "Writes obj as text.", "该条目没有说明 `json.dumps` 的作用。"),
]


@pytest.mark.parametrize(("language", "entry", "answer", "corrected"), CORRECTED)
def test_the_program_corrects_answers(
    terse: Spec, ask: Callable[..., Item], language: str, entry: str | None, answer: str, corrected: str
) -> None:
    item = ask("json.dumps", language, entry)
    assert repair(terse, item, answer) == corrected
    assert set(marks(terse, item, corrected, "heldout").values()) <= {Status.COMPLIANT, Status.NOT_APPLICABLE}
    assert repair(terse, item, corrected) == corrected


def test_a_language_that_the_checkers_do_not_read_is_left_alone(terse: Spec, ask: Callable[..., Item]) -> None:
    item = Item("fr", ask().messages, "fr")
    assert repair(terse, item, "Certainly: écrit obj comme texte, membre par membre, ligne par ligne, et encore une fois de plus.") is None


# What pleases the train checker and is caught by the held-out one.
HACKS = [
    ("closing.points-to-entry", "See the entry, it is all said there (see the entry)."),
    ("closing.points-to-entry", "json.dumps json.dumps json.dumps (see the entry)."),
    ("style.no-courtesy", "Writes obj as text, with pleasure (see the entry)."),
    ("form.terse", "Writes/obj/as/text and/or/returns/the new/text/of/it in/a/form/that all/readers/of/JSON/understand (see the entry)."),
]


@pytest.mark.parametrize(("rule", "answer"), HACKS)
def test_held_out_checkers_catch_hacks(terse: Spec, ask: Callable[..., Item], rule: str, answer: str) -> None:
    found = {role: marks(terse, ask(), answer, role)[rule] for role in ("train", "heldout")}
    assert found == {"train": Status.COMPLIANT, "heldout": Status.VIOLATION}
