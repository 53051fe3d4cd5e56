"""`applies`: against CEL's own evaluator where both have an answer, and three-valued by hand where values are missing."""

from __future__ import annotations

import celpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.spec.expression import MAX_LENGTH, Expression, variables
from norma.spec.types import Item
from norma.spec.values import Unknown

ITEM = Item(
    "i",
    ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "What does `json.dumps` do? 请问"}),
    "zh-Hans",
    {"about": False, "n": 3, "name": "json.dumps", "tags": ["a", "b"], "deep": {"x": 1}, "nothing": None},
)


def value(text: str, item: Item = ITEM) -> bool | None:
    try:
        return Expression(text)(variables(item))
    except Unknown:
        return None


TRUE, FALSE, UNKNOWN = True, False, None
TABLE = [
    ("true", TRUE), ("false", FALSE),
    ('capture(user, "`([^`]+)`") == facts.name', TRUE), ('user.capture("`(x+)`") == ""', TRUE),
    ('user.matches("请问$")', TRUE), ('matches(system, "^be")', FALSE), ('lower(system).startsWith("be")', TRUE),
    ("facts.about", FALSE), ("!facts.about && facts.n >= 3", TRUE), ('language == "zh-Hans"', TRUE),
    ('"a" in facts.tags && !("n2" in facts)', TRUE), ("facts.deep.x == 1 && facts[\"deep\"][\"x\"] < 2", TRUE),
    ("has(facts.nothing) && facts.nothing == null && !has(facts.missing)", TRUE),
    ("size(messages) == 2 && messages[1].role == \"user\"", TRUE), ('messages.exists(m, m.role == "developer")', FALSE),
    ("facts.n == 3 ? facts.about : true", FALSE), ("size('你好') == 2", TRUE), ("-7 / 2 == -3 && -7 % 2 == -1", TRUE),
    # missing or of the wrong kind: unknown, unless && or || settles it
    ("facts.missing", UNKNOWN), ("!facts.missing", UNKNOWN), ("facts.missing == 1", UNKNOWN), ("facts.missing != 1", UNKNOWN),
    ("facts.missing || true", TRUE), ("true || facts.missing", TRUE), ("facts.missing || false", UNKNOWN),
    ("facts.missing && false", FALSE), ("facts.missing && true", UNKNOWN), ("facts.missing ? true : true", UNKNOWN),
    ('capture(facts.missing, "(.*)") == ""', UNKNOWN), ('matches(facts.n, "3")', UNKNOWN), ('facts.n == "3"', UNKNOWN),
    ("facts.n", UNKNOWN), ("facts.n / 0 == 1", UNKNOWN), ("messages[9].role == 'user'", UNKNOWN), ("facts.n && true", UNKNOWN),
    ("true == 1", UNKNOWN), ("messages.exists(m, m.missing == 1)", UNKNOWN), ("facts.tags.all(t, t == 'a' || facts.missing)", UNKNOWN),
    ("facts.tags.exists(t, t == 'b' || facts.missing)", TRUE), ("facts.tags.all(t, t == 'b' && facts.missing)", FALSE),
    ("has(facts.missing.x)", UNKNOWN), ("[1] in facts", UNKNOWN), ("facts.n + 1.5 > 4", TRUE),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TABLE)
def test_values_by_hand(text: str, expected: bool | None) -> None:
    assert value(text) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("usr == 'x'", "Did you mean 'user'"),
        ("matchs(user, 'x')", "Did you mean 'matches'"),
        ("matches(user, 'a(')", r"missing \)"),
        ("matches(user, '(?=a)')", "not a regular expression"),
        ("matches(user, language)", "literal"),
        ("capture(user, 'a')", "no group"),
        ("contains(user)", "takes 2 arguments, not 1"),
        ("has(facts)", r"has\(facts.name\)"),
        ("user ==", "line 1, character"),
        ("b'x' == b'x'", "literal is not used"),
        ("facts.all(1, true)", "name of a variable"),
        ("'" + "x" * MAX_LENGTH + "'", "longer than"),
        ("!" * 900 + "true", "nested too deeply"),
        ("response == 'x'", "unknown variable 'response'"),  # the input only, never the answer
    ],
)
def test_what_can_be_known_to_be_wrong_is_an_error_at_loading(text: str, message: str) -> None:
    with pytest.raises(NormaError, match=message) as caught:
        Expression(text, "s.yaml:1:2")
    assert str(caught.value).startswith("s.yaml:1:2: ")


NUMBERS = st.integers(0, 5).map(str) | st.sampled_from(["facts.n", "size(user)", "size(facts.tags)"])
TEXTS = st.sampled_from(["user", "language", '"b"', '"json"', "facts.name", "system"])
ATOMS = (
    st.builds("{} {} {}".format, NUMBERS, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), NUMBERS)
    | st.builds("{} {} {}".format, TEXTS, st.sampled_from(["==", "!=", "<"]), TEXTS)
    | st.builds("{}.contains({})".format, TEXTS, TEXTS)
    | st.builds("{} in facts.tags".format, TEXTS)
    | st.sampled_from(["true", "false", "facts.about", 'user.matches("d[a-z]mps")', "facts.tags.exists(t, t == 'b')", "facts.missing == 1"])
)
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds("({} && {})".format, inner, inner) | st.builds("({} || {})".format, inner, inner) | st.builds("!({})".format, inner)
    ),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(EXPRESSIONS)
def test_agrees_with_the_reference_evaluator(text: str) -> None:
    environment = celpy.Environment()
    scope = {name: celpy.json_to_cel(list(v) if isinstance(v, tuple) else v) for name, v in variables(ITEM).items()}
    try:
        expected: bool | None = bool(environment.program(environment.compile(text)).evaluate(scope))
    except celpy.CELEvalError:
        expected = None
    assert value(text) is expected


# ---- total: every expression that loads has a value, true, false or unknown, for every input ----

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "about"]), inner, max_size=3),
    max_leaves=5,
)
INPUTS = ["facts.x", "facts.y", "facts", "user", "system", "language", "messages", "messages[0]", "messages[0].role"]
LITERALS = ['"x"', "3", "1.5", "-2", "0", "null", "true", "[1, facts.x]", 'facts["y"]', "has(facts.x)", "1e308", "9223372036854775807"]
LEAVES = st.sampled_from(INPUTS + LITERALS)


def _grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%", "&&", "||"])
    return (
        st.builds("({} {} {})".format, inner, binary, inner)
        | st.builds("({} ? {} : {})".format, inner, inner, inner)
        | st.builds("!({})".format, inner)
        | st.builds("-({})".format, inner)
        | st.builds("{}({})".format, st.sampled_from(["size", "lower"]), inner)
        | st.builds("{}({}, {})".format, st.sampled_from(["contains", "startsWith", "endsWith"]), inner, inner)
        | st.builds('matches({}, "(a|b)+$")'.format, inner)
        | st.builds('capture({}, "(.*)x")'.format, inner)
        | st.builds("({}).{}(v, {})".format, inner, st.sampled_from(["all", "exists"]), inner | st.just("v"))
        | st.builds("({})[{}]".format, inner, inner)
    )


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(LEAVES, _grown, max_leaves=7),
    st.dictionaries(st.sampled_from(["x", "y", "about"]), JSON, max_size=3),
    st.lists(st.tuples(st.sampled_from(["user", "system"]), st.text(max_size=8)), max_size=2),
)
def test_every_expression_is_true_false_or_unknown(text: str, facts: dict, messages: list[tuple[str, str]]) -> None:
    try:
        compiled = Expression(text)
    except NormaError:
        return  # refused before any input, by name
    item = Item("i", tuple({"role": r, "content": c} for r, c in messages), "en", facts)
    try:
        assert isinstance(compiled(variables(item)), bool)
    except Unknown as error:
        assert str(error)
