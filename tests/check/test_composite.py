"""Three-valued logic against a slow oracle: try every way in which what is unknown could turn out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.base.errors import NormaError
from norma.check.composite import Composite, at_least, build, negated
from norma.spec import registry
from norma.spec.types import CheckerFailure, Finding, Item, Message, Status

ITEM = Item("1", (Message(role="user", content="What is it?"),))
C, V, U, E = Status.COMPLIANT, Status.VIOLATION, Status.UNSURE, Status.ERROR


@given(st.lists(st.sampled_from([C, V, U, E]), min_size=1, max_size=5), st.integers(1, 5))
def test_at_least_is_what_all_ways_of_the_unknown_agree_on(statuses: list[Status], n: int) -> None:
    found = at_least([Finding(s, None if s in (U, E) else float(s is C)) for s in statuses], n)
    outcomes = set()
    for ways in itertools.product((True, False), repeat=sum(s in (U, E) for s in statuses)):
        rest = iter(ways)
        outcomes.add(sum(s is C or (s in (U, E) and next(rest)) for s in statuses) >= n)
    if len(outcomes) == 1:
        assert found.status is (C if outcomes == {True} else V)
    else:
        assert found.status is (E if E in statuses else U) and found.score is None
    assert (
        at_least([negated(Finding(s)) for s in statuses], 1).status
        == negated(at_least([Finding(s) for s in statuses], len(statuses))).status
    )


def test_scores() -> None:
    parts = [Finding(C, 0.9), Finding(V, 0.4), Finding(V, 0.2)]
    assert at_least(parts, 1).score == 0.9 and at_least(parts, 2).score == 0.4 and at_least(parts, 3).score == 0.2
    assert at_least([Finding(V, 0.4), Finding(E)], 2).score == 0.4  # the error counts neither for nor against
    assert negated(Finding(C, 0.9, margin=0.4)) == Finding(V, pytest.approx(0.1), margin=-0.4)


class Fixed:
    languages = frozenset[str]()

    def __init__(self, said: Status) -> None:
        self.id = self.digest = said.value
        self.said = said

    def check(self, item: Item, response: str) -> Finding:
        if self.said is E:
            raise CheckerFailure("broken")
        return Finding(self.said)


@pytest.fixture(autouse=True)
def kinds() -> Any:
    from norma.check.programs import build as program

    registry.register("fixed", lambda use, params, where: Fixed(Status(use)))
    registry.register("program", program)
    registry.register("composite", build)
    yield
    for kind in ("fixed", "program", "composite"):
        registry.unregister(kind)


def composite(use: str, *statuses: str, n: int | None = None) -> Composite:
    params: dict[str, Any] = {"of": [{"kind": "fixed", "use": s} for s in statuses]}
    return build(use, params | ({"n": n} if n else {}), "spec.yaml:3:5")


@pytest.mark.parametrize(
    ("use", "statuses", "n", "expected"),
    [
        ("all", ("compliant", "compliant"), None, C),
        ("all", ("compliant", "error"), None, E),
        ("all", ("violation", "error"), None, V),
        ("all", ("unsure", "compliant"), None, U),
        ("any", ("compliant", "error"), None, C),
        ("any", ("violation", "error"), None, E),
        ("any", ("unsure", "error"), None, E),
        ("not", ("error",), None, E),
        ("not", ("unsure",), None, U),
        ("not", ("violation",), None, C),
        ("at_least", ("compliant", "error", "violation"), 2, E),
        ("at_least", ("compliant", "error", "compliant"), 2, C),
    ],
)
def test_composites(use: str, statuses: tuple[str, ...], n: int | None, expected: Status) -> None:
    checker = composite(use, *statuses, n=n)
    assert registry.run(checker, ITEM, "It is a cat.").status is expected
    assert registry.run(checker, ITEM, "  ").status is V  # `not` passes no empty answer either


def test_nested_programs_and_loose() -> None:
    cat = {"use": "regex", "params": {"pattern": "cat"}}
    dog = {"use": "regex", "params": {"pattern": "dog"}}
    either = build("all", {"of": [{"kind": "composite", "use": "not", "params": {"of": [dog]}}, cat]}, "")
    assert either.check(ITEM, "A cat.").status is C and either.check(ITEM, "A cat and a dog.").status is V
    quoted = build("loose", {"of": [{"use": "startend:quotation"}]}, "")
    assert quoted.check(ITEM, 'Sure:\n"A cat."').status is C and quoted.check(ITEM, "A cat.").status is V


def test_digests_cover_the_parts() -> None:
    one, two = composite("all", "compliant", "violation"), composite("all", "compliant", "error")
    assert (
        len(
            {
                one.digest,
                two.digest,
                composite("any", "compliant", "violation").digest,
                composite("at_least", "compliant", "error", n=1).digest,
            }
        )
        == 4
    )
    assert one.digest == composite("all", "compliant", "violation").digest


@pytest.mark.parametrize(
    ("use", "params", "message"),
    [
        ("al", {"of": [{"use": "regex"}]}, "Did you mean 'all'"),
        ("all", {"of": []}, "parameter 'of'"),
        ("at_least", {"of": [{"use": "no_comma"}]}, "unknown program checker"),
        ("at_least", {"of": [{"use": "punctuation:no_comma"}]}, "needs parameter 'n'"),
        ("at_least", {"of": [{"use": "punctuation:no_comma"}], "n": 2}, "asks for 2 of 1"),
        ("not", {"of": [{"use": "punctuation:no_comma"}] * 2}, "takes one part"),
        ("any", {"of": [{"use": "punctuation:no_comma"}], "n": 1}, "takes no parameter 'n'"),
        ("all", {"of": [{"use": "punctuation:no_comma", "role": "x"}]}, "part 1, 'role'"),
        ("all", {"of": [{"kind": "human"}]}, "cannot be a part"),
    ],
)
def test_wrong_composites(use: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(NormaError, match=message) as error:
        build(use, params, "spec.yaml:3:5")
    assert str(error.value).startswith("spec.yaml:3:5: ")
