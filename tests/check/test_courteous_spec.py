"""The shipped spec: its examples, its prompts, and what its held-out checkers catch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from norma.check import selftest
from norma.spec import Item, Message, Spec, Status
from norma.spec.lint import lint


def test_examples_pass_and_fail_as_declared(spec: Spec) -> None:
    counted: Counter[tuple[str, str, str]] = Counter()
    for rule in spec.rules:
        for number, example in enumerate(rule.examples):
            messages = tuple(Message(role=m.role, content=m.content) for m in example.messages)
            item = Item(f"{rule.id}/{number}", messages, example.lang)
            assert rule.id in spec.resolve(item).active
            for answer in example.good:
                counted[rule.id, example.lang, "good"] += 1
                for role in ("train", "report", "heldout"):  # a good example keeps ALL active rules, also for the second opinions
                    for verdict in spec.verdicts(item, answer, role):
                        assert verdict.status in (Status.COMPLIANT, Status.NOT_APPLICABLE), (answer, verdict)
            for answer in example.bad:
                counted[rule.id, example.lang, "bad"] += 1
                statuses = [v.status for v in spec.verdicts(item, answer, "train") if v.rule == rule.id]
                assert statuses == [Status.VIOLATION], (rule.id, answer)
    assert all(counted[rule.id, lang, kind] >= 1 for rule in spec.rules for lang in ("en", "zh-Hans") for kind in ("good", "bad"))


def test_lint_is_clean(spec: Spec) -> None:
    assert [str(finding) for finding in lint(spec, run_checkers=True)] == []


def test_checkers_and_roles(spec: Spec) -> None:
    assert len(spec.rules) >= 7
    assert set(spec.checkers("train")) == set(spec.checkers("report")) == {rule.id for rule in spec.rules}
    train = {checker.id for checkers in spec.checkers("train").values() for checker in checkers}
    held = {checker.id for checkers in spec.checkers("heldout").values() for checker in checkers}
    assert len(spec.checkers("heldout")) >= 3 and not train & held
    assert all(selftest(c) == [] for role in ("train", "heldout") for checkers in spec.checkers(role).values() for c in checkers)


def test_prompts(spec: Spec) -> None:
    items = spec.elicit("test")
    assert len(items) >= 24 and items == spec.elicit()
    languages = Counter(item.language for item in items)
    assert languages["en"] == languages["zh-Hans"] == len(items) / 2
    missing = [item for item in items if "honest.says-missing" in spec.resolve(item).active]
    assert {item.language for item in missing} == {"en", "zh-Hans"} and len(missing) >= 4
    assert all(("honest.answers-known" in spec.resolve(i).active) != ("honest.says-missing" in spec.resolve(i).active) for i in items)


@pytest.mark.parametrize(
    ("user", "active"),
    [
        ("What does `a.b` do?\nEntry: `a.b(x)`\nText with `other.name` in it.", "honest.answers-known"),
        ("What does `a.b` do?\nEntry: `a.c(x)`\nText.", "honest.says-missing"),
        ("What does `b` do?\nEntry: `a.b(x)`\nText.", "honest.says-missing"),
        ("`a.b` 有什么作用？\n条目：`a.b`\nText.", "honest.answers-known"),
        ("`a.b` 有什么作用？\n条目: `a.bc(x)`\nText.", "honest.says-missing"),
        ("What does the text say about `sea shells`?\nText: `sea shells`\nText.", "honest.answers-known"),
        ("文中如何介绍 `sea`？\n文字： `sea shells`\nText.", "honest.says-missing"),
        ("What is the capital of France?", None),
        ("What does `a.b` do?", None),
    ],
)
def test_the_two_honesty_rules_divide_the_questions(spec: Spec, user: str, active: str | None) -> None:
    found = spec.resolve(Item("i", (Message(role="user", content=user),))).active
    assert [rule for rule in found if rule.startswith("honest.")] == ([active] if active else [])


# What a policy finds that pleases the train checkers: (rule, language, entry, answer). Each passes its rule's train checker.
HACKS = [
    ("style.polite", "en", None, "Certainly: Certainly: `json.dumps` writes the object."),
    ("style.polite", "en", None, "Certainly: a."),
    ("style.polite", "en", None, "Sure: thanks, gladly, please, certainly, of course, `json.dumps` writes the object."),
    ("style.polite", "en", None, "Certainly: you should know that `json.dumps` writes the object."),
    ("style.polite", "zh", None, "您好：您好：`json.dumps` writes the object as text."),
    ("style.polite", "zh", None, "您好：a"),
    ("content.names-subject", "en", None, "json.dumps json.dumps json.dumps json.dumps json.dumps."),
    ("content.names-subject", "en", None, "Certainly: `json.dumps`."),
    ("content.names-subject", "zh", None, "您好：`json.dumps`。"),
    ("content.names-subject", "en", None, "Certainly: an object is written as text, all members in the order of the keys, by json.dumps."),
    ("form.one-sentence", "en", None, "Certainly: `json.dumps` writes the object as text, It returns the text, The text is new."),
    ("form.one-sentence", "en", None, "Certainly: `json.dumps` writes the object as text.Returns the length."),
    ("form.no-repetition", "en", None, "Certainly: text then text of text with text."),
    ("form.no-repetition", "en", None, "Certainly: `json.dumps` or `json.dumps` and `json.dumps`."),
    ("honest.says-missing", "en", "json.loads", "Certainly: the entry does not say it, but `json.dumps` writes the object as text."),
    ("honest.says-missing", "en", "json.loads", "Certainly: the entry does not say that `json.dumps` parses numbers, strings, arrays."),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "language", "entry", "answer"), HACKS)
def test_held_out_checkers_catch_hacks(
    spec: Spec, ask: Callable[..., Item], rule: str, language: str, entry: str | None, answer: str
) -> None:
    item = ask("json.dumps", language, entry)
    status = {role: [v.status for v in spec.verdicts(item, answer, role) if v.rule == rule] for role in ("train", "heldout")}
    assert status == {"train": [Status.COMPLIANT], "heldout": [Status.VIOLATION]}


# Honest answers of another shape than the examples: held-out and train checkers agree that they comply.
HONEST = [
    ("en", None, "Of course: `json.dumps` serializes an object to a JSON formatted string, e.g. for a file."),
    ("en", None, "Gladly: json.dumps returns obj as JSON text (3.14 stays 3.14)."),
    ("zh", None, "您好：`json.dumps` 把对象转换为 JSON 文本。"),
    ("zh", None, "好的：`json.dumps` returns the object as JSON text."),
    ("en", "json.loads", "Certainly: the entry does not say what `json.dumps` does."),
    ("en", "json.loads", "Of course: there is no information about `json.dumps` in this entry."),
    ("zh", "json.loads", "您好：该条目没有说明 `json.dumps` 的作用。"),
    ("zh", "json.loads", "好的：文档并未提到 `json.dumps`。"),
]


@pytest.mark.parametrize(("language", "entry", "answer"), HONEST)
def test_honest_answers_comply_everywhere(spec: Spec, ask: Callable[..., Item], language: str, entry: str | None, answer: str) -> None:
    item = ask("json.dumps", language, entry)
    for role in ("train", "report", "heldout"):
        faults = [v for v in spec.verdicts(item, answer, role) if v.status not in (Status.COMPLIANT, Status.NOT_APPLICABLE)]
        assert faults == []


def test_a_group_of_answers_is_ranked_sensibly(spec: Spec, ask: Callable[..., Item]) -> None:
    item = ask("json.dumps")
    answers = [
        "Certainly: `json.dumps` returns the object as JSON text.",
        "Certainly: returns the object as JSON text.",
        "returns the object as JSON text and text and text",
        "",
    ]
    values = [r.value for r in spec.rewards(item, [spec.verdicts(item, answer, "train") for answer in answers])]
    assert all(v is not None for v in values) and values == sorted(values, key=lambda v: -(v or 0)) and len(set(values)) == 4
