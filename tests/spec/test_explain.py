"""The trace: which step decided, for every step of the order, and that it never disagrees with the resolution it explains."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.spec import Item, Spec
from norma.spec.explain import explain
from norma.spec.resolve import ORDER
from norma.spec.types import Standing

# what decides, rules, facts, the rule asked about, the step that must be named, by whom
TABLE = [
    ("applies", ["id: a, applies: 'false'"], {}, "a", "applies", ""),
    ("unless", ["id: a, level: root, unless: [b]", "id: b"], {}, "a", "unless", "b"),
    ("unless before the role", ["id: a, unless: [b]", "id: b"], {"a": "root"}, "a", "unless", "b"),
    ("the role", ["id: a, level: user", "id: b, overrides: [a]"], {"a": "developer"}, "a", "role", "developer"),
    ("the role before the level", ["id: a", "id: b, level: root, conflicts_with: [a]"], {"a": "root"}, "a", "role", "root"),
    ("level", ["id: a, conflicts_with: [b]", "id: b, level: user"], {}, "a", "level", "b"),
    ("level before overrides", ["id: a, level: root, conflicts_with: [b]", "id: b, overrides: [a]"], {}, "b", "level", "a"),
    ("of two, the one whose name is first", ["id: a, unless: [c, b]", "id: b", "id: c"], {}, "a", "unless", "b"),
    ("overrides", ["id: a", "id: b, overrides: [a]"], {}, "a", "overrides", "b"),
    ("overrides before priority", ["id: a, conflicts_with: [c]", "id: b, overrides: [a]", "id: c, priority: 2"], {}, "a", "overrides", "b"),
    ("priority", ["id: a, conflicts_with: [b]", "id: b, priority: 1"], {}, "a", "priority", "b"),
    ("must", ["id: a, conflicts_with: [b]", "id: b, must: true"], {}, "a", "must", "b"),
    ("nobody", ["id: a, conflicts_with: [b]", "id: b"], {}, "a", "", "b"),
    ("unknown", ["id: a, applies: facts.gone"], {}, "a", "applies", ""),
]


@pytest.mark.parametrize(("name", "rules", "overrides", "rule", "step", "by"), TABLE, ids=[row[0] for row in TABLE])
def test_the_step_that_decided(make, ask, name: str, rules: list[str], overrides: dict, rule: str, step: str, by: str) -> None:
    for order in (rules, rules[::-1]):  # the reason, too, does not depend on the order of the file
        spec = make(*order)
        trace = next(t for t in explain(spec, ask(**({"overrides": overrides} if overrides else {}))) if t.rule == rule)
        assert (trace.step, trace.by) == (step, by)
        assert [s.step for s in trace.steps if s.decided] == [step]
        assert sorted(trace.steps[1:], key=lambda s: ORDER.index(s.step)) == list(trace.steps[1:])


def test_what_is_printed(make, ask) -> None:
    spec = make("id: a, applies: 'facts.n > 1'", "id: b, level: root, conflicts_with: [a]", "id: c, level: system")
    first, second, third = map(str, explain(spec, ask(n=2, overrides={"c": "user"})))
    assert first == (
        "a: overridden\n"
        "  applies    facts.n > 1 is true\n"
        "  level      level root stands above guideline: b is active, this rule is set aside   <- decided here"
    )
    assert second.splitlines() == [
        "b: active",
        "  applies    always",
        "  level      over a (level root stands above guideline), which is overridden",
        "             nothing that stands sets it aside",
    ]
    assert "role       the user may not switch it off: its level is system" in third
    off = str(explain(spec, ask(n=1))[0])
    assert off == "a: not_applicable\n  applies    facts.n > 1 is false   <- decided here"
    assert "'n' is missing" in str(explain(spec, ask())[0])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_trace_says_what_the_resolution_says(data: st.DataObject) -> None:
    names = ["a", "b", "c"]
    rules = []
    for i, name in enumerate(names):
        later, others = names[i + 1 :], [n for n in names if n != name]
        some = lambda of: data.draw(st.lists(st.sampled_from(of), unique=True, max_size=2)) if of else []  # noqa: E731
        rules.append(
            f"- {{id: {name}, level: {data.draw(st.sampled_from(['root', 'user']))}, priority: {data.draw(st.integers(0, 1))}, "
            f"must: {str(data.draw(st.booleans())).lower()}, applies: '{data.draw(st.sampled_from(['true', 'false', 'facts.gone']))}', "
            f"unless: {some(later)}, overrides: {some(later)}, conflicts_with: {some(others)}, statement: {{en: x}}}}".replace("'a'", "a")
            .replace("'b'", "b")
            .replace("'c'", "c")
        )
    spec = Spec.parse('norma: 1\nspec: {id: t, version: "1"}\nrules:\n' + "\n".join(rules))
    switched = data.draw(st.dictionaries(st.sampled_from(names), st.sampled_from(["root", "user", "guideline"]), max_size=2))
    item = Item("i", ({"role": "user", "content": "x"},), facts={"overrides": switched})
    found = spec.resolve(item).statuses
    for trace in explain(spec, item):
        own = found[trace.rule]
        assert (trace.status, trace.step, trace.by) == (own.status, own.step, own.by)
        if own.status is Standing.OVERRIDDEN:
            (decided,) = [s for s in trace.steps if s.decided]
            assert decided.step == own.step and decided.other == own.by
            earlier = [s for s in trace.steps[1:] if ORDER.index(s.step) < ORDER.index(own.step) and not s.text.startswith("over ")]
            assert not any("is active" in s.text or "switches it off" in s.text for s in earlier)  # nothing earlier would have decided
        if own.status is Standing.ACTIVE:
            assert not any(s.decided for s in trace.steps)
