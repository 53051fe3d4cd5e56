"""Supervised correction: what is collected of answers (how pairs and marks are trained: test_preference.py)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from norma.align import correction
from norma.align.correction import collect
from norma.generate import Completion, Sampling
from norma.lm import LanguageModel
from norma.spec import Item, Spec

Make = Callable[..., LanguageModel]


GOOD = "Certainly: `json.dumps` writes an object as text."


def item() -> Item:
    user = "What does `json.dumps` do?\nEntry: `json.dumps(obj)`\nThe result is a str."
    return Item("json.dumps#en", ({"role": "user", "content": user},), "en")


def collected(spec: Spec, answers: list[Completion], monkeypatch: pytest.MonkeyPatch, make_model: Make) -> correction.Collected:
    monkeypatch.setattr(correction, "sample", lambda *_, **__: [answers])
    return collect(make_model(0), spec, [item()], Sampling(), each=len(answers))


def test_what_is_collected(spec: Spec, monkeypatch: pytest.MonkeyPatch, make_model: Make) -> None:
    """A good answer makes no pair; a bad one is paired with its own correction; one that was cut off with the good one."""
    answers = [
        Completion((), GOOD, "stop"),
        Completion((), "`json.dumps` writes an object as text", "stop"),
        Completion((), "Certainly: `json.dumps` writes an object as", "length"),
    ]
    found = collected(spec, answers, monkeypatch, make_model)
    assert (found.answers, found.compliant, found.uncorrected) == (3, 1, 0)
    assert [(p.chosen, p.rejected) for p in found.pairs] == [(GOOD, answers[1].text), (GOOD, answers[2].text)]
    assert all(p.chosen != p.rejected for p in found.pairs)
    assert found.unfinished == {(item().id, answers[2].text)}
    assert set(found.rewards) <= {(item().id, a.text) for a in answers} and found.rewards[item().id, GOOD] == 1.0
    assert all(value < 1 for (_, text), value in found.rewards.items() if text == answers[1].text)
    checkers = sum(len(c) for c in spec.checkers("train").values())
    assert len(found.labels) == 3 * checkers and {m.annotator for m in found.labels} == {
        m.annotator for m in found.labels if m.source == "checker"
    }
    broken = [m for m in found.labels if m.response == answers[1].text and m.verdict == "violation"]
    assert {m.rule for m in broken} >= {"style.polite", "form.full-stop"} and all(m.corrected == GOOD for m in broken)


def test_what_no_program_can_correct_is_counted(spec: Spec, monkeypatch: pytest.MonkeyPatch, make_model: Make) -> None:
    found = collected(spec, [Completion((), "", "stop"), Completion((), GOOD, "length")], monkeypatch, make_model)
    assert (found.compliant, found.uncorrected, found.pairs) == (0, 2, [])
