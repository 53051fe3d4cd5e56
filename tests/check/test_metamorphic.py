"""The self-test passes for the shipped programs and finds what is wrong with bad ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from norma.check import build, known_programs, selftest
from norma.spec.types import Finding, Item, Status

PARAMS = {"words": {"words": ["lays"]}, "regex": {"pattern": "lays"}, "length": {"max_words": 30, "max_characters": 30}}


@pytest.mark.parametrize("use", sorted(known_programs()))
def test_every_program_passes(use: str, ask: Callable[..., Item]) -> None:
    assert selftest(build(use, PARAMS.get(use, {}), "")) == []


class Careless:
    """A checker that passes everything that does not begin with white space, with a score of 2 for long answers."""

    id, digest, languages = "careless", "", frozenset[str]()

    def check(self, item: Item, response: str) -> Finding:
        long = len(response) > 70
        return Finding(
            Status.VIOLATION if response.startswith("<think>\nA plan.") else Status.COMPLIANT,
            2.0 if long else 1.0,
            ((0, 99),) if long else (),
        )


def test_bad_checkers_are_found_out(ask: Callable[..., Item]) -> None:
    faults = selftest(Careless(), [(ask(), "Certainly: it adds.")])
    text = "\n".join(faults)
    for part in (
        "en, empty: passes",
        "zh, echo: passes",
        "en, think: passes",
        "white space: passes",
        "score 2.0",
        "lies outside",
        "think block: turns",
    ):
        assert part in text
    assert "boilerplate: passes" not in text  # a foreign checker promises nothing
