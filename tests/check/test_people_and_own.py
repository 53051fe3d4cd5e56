"""People's marks as a checker, and checkers of somebody's own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from norma.base.errors import NormaError
from norma.check import human, known_programs
from norma.check.program import REGISTRY
from norma.check.programs import build
from norma.labels import Label, LabelStore
from norma.pipeline.trust import load_trusted
from norma.spec import Spec, registry
from norma.spec.types import Checker, Item, Message, Status

SPEC = "norma: 1\nspec: {id: s, version: '1'}\nrules: [{id: r, level: guideline, statement: {en: Be polite.}}]"
ITEM = Item("i1", (Message(role="user", content="What is it?"),))
ANSWER = "A cat."


def mark(person: str, verdict: str, answer: str = ANSWER, revision: int = 0, supersedes: str | None = None, gold: bool = False) -> Label:
    rule = Spec.parse(SPEC).rule("r")
    return Label(
        "i1", answer, "r", rule.hash, person, verdict, revision=revision, supersedes=supersedes, gold=gold, spans=((2, 5),)
    )  # fmt: skip


def people(tmp_path: Path, marks: list[Label], **params: object) -> Checker:
    place = tmp_path / "labels.sqlite"
    with LabelStore(place) as store:
        store.add(marks)
    return human.build(str(place), params, "", rule=Spec.parse(SPEC).rule("r"))


def test_people(tmp_path: Path) -> None:
    checker = people(tmp_path, [])
    assert registry.run(checker, ITEM, ANSWER).status is Status.UNSURE
    first = mark("ann", "violation")
    people(tmp_path, [first, mark("ann", "compliant", "Another answer.")])
    found = registry.run(checker, ITEM, ANSWER)
    assert (found.status, found.score, found.evidence) == (Status.VIOLATION, 0.0, ((2, 5),))
    people(tmp_path, [mark("bob", "compliant")])
    assert registry.run(checker, ITEM, ANSWER).status is Status.UNSURE  # divided
    people(tmp_path, [mark("cy", "compliant"), mark("dan", "unsure")])
    assert registry.run(checker, ITEM, ANSWER).score == pytest.approx(2 / 3)
    people(tmp_path, [mark("ann", "compliant", revision=1, supersedes=first.key)])  # she changed her mind
    assert registry.run(checker, ITEM, ANSWER).score == 1.0
    assert registry.run(people(tmp_path, [], least=4), ITEM, ANSWER).status is Status.UNSURE
    people(tmp_path, [mark("eve", "violation", gold=True)])
    assert registry.run(checker, ITEM, ANSWER).status is Status.VIOLATION  # a gold mark decides alone
    assert registry.run(people(tmp_path, [], annotators=["bob"]), ITEM, ANSWER).status is Status.COMPLIANT


def test_marks_of_another_meaning_do_not_count(tmp_path: Path) -> None:
    people(tmp_path, [mark("ann", "compliant")])
    other = Spec.parse(SPEC.replace("Be polite", "Be kind")).rule("r")
    checker = human.build(str(tmp_path / "labels.sqlite"), {}, "", rule=other)
    assert checker.check(ITEM, ANSWER).status is Status.UNSURE
    assert checker.digest != people(tmp_path, []).digest
    with pytest.raises(NormaError, match="no store"):
        human.build("", {"least": 2}, "", rule=other)


def test_a_spec_with_people(tmp_path: Path) -> None:
    registry.register("human", human.build)
    try:
        people(tmp_path, [mark("ann", "compliant")])
        entry = f"checkers: [{{id: p, kind: human, use: '{tmp_path / 'labels.sqlite'}', roles: [gold]}}]"
        spec = Spec.parse(SPEC.replace("{en: Be polite.}}", f"{{en: Be polite.}}, {entry}}}"))
        assert [v.status for v in spec.verdicts(ITEM, ANSWER, "gold")] == [Status.COMPLIANT]
        plain = Spec.parse(SPEC.replace("{en: Be polite.}}", "{en: Be polite.}, checkers: [{id: p, kind: human, roles: [gold]}]}"))
        assert plain.verdicts(ITEM, ANSWER, "gold") == []  # people without a store: nothing to look up
    finally:
        registry.unregister("human")


OWN = '''
from norma.check.program import Outcome, Params, program

LIMIT = 3

def few(text):
    return len(text.split()) <= LIMIT

@program("my_few_words", Params)
def my_few_words(item, text, params):
    """Few words."""
    return Outcome(float(few(text)))
'''


def test_a_file_of_ones_own_that_the_recipe_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN, encoding="utf-8")
    with pytest.raises(NormaError, match="--trust"):
        load_trusted([file], False, "recipe.yaml:3:1")
    assert "my_few_words" not in known_programs()
    digests = []
    try:
        for limit in ("3", "4"):  # what the function reaches in its own file counts
            changed = tmp_path / f"mine{limit}.py"
            changed.write_text(OWN.replace("LIMIT = 3", f"LIMIT = {limit}"), encoding="utf-8")
            load_trusted([changed], True, "recipe.yaml:3:1")
            checker = build("my_few_words", {}, "")
            digests.append(checker.digest)
            assert checker.check(ITEM, "A black cat.").status is Status.COMPLIANT
            assert checker.check(ITEM, "A black and white cat.").status is Status.VIOLATION
            REGISTRY.pop("my_few_words")
    finally:
        REGISTRY.pop("my_few_words", None)
        for name in [n for n in sys.modules if n.startswith("norma_trusted_")]:
            del sys.modules[name]
    assert digests[0] != digests[1]


def test_the_kinds_are_entry_points() -> None:
    import tomllib

    from norma.spec.registry import GROUP

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = project["entry-points"][GROUP]
    assert set(points) >= {"program", "composite", "classifier", "reward", "judge", "human"}
    for kind, target in points.items():
        module, _, name = target.partition(":")
        assert callable(getattr(__import__(module, fromlist=[name]), name)), kind
