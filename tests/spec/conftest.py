"""A tiny kind of checker and a short way to write specs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from norma.base.errors import NormaError, nearest
from norma.spec import CheckerFailure, Finding, Item, Spec, Status, register, unregister

LANGUAGES: dict[str, frozenset[str]] = {"english": frozenset({"en"})}


@dataclass
class Fake:
    """``has``: compliant when the parameter `word` is in the response; the others misbehave, each in its way."""

    id: str
    digest: str
    languages: frozenset[str]
    word: str

    def check(self, item: Item, response: str) -> Finding:
        match self.id:
            case "broken":
                raise CheckerFailure("no answer from the judge")
            case "buggy":
                raise TypeError("a bug, not a failure")
            case "dodger":
                return Finding(Status.NOT_APPLICABLE)
            case "wild":
                return Finding(Status.COMPLIANT, 1.5)
            case "torn":
                return Finding(Status.UNSURE)
            case "graded":
                score = float(response)
                return Finding(Status.COMPLIANT if score >= 0.5 else Status.VIOLATION, score)
        return Finding(Status.COMPLIANT if self.word in response else Status.VIOLATION)


KNOWN = ("broken", "buggy", "dodger", "english", "graded", "has", "has2", "torn", "wild")


def build(use: str, params: dict[str, Any], where: str) -> Fake:
    if use not in KNOWN:
        raise NormaError(f"unknown checker '{use}'", where=where, mend=nearest(use, KNOWN))
    return Fake(use, f"digest-of-{use}-{sorted(params.items())}", LANGUAGES.get(use, frozenset()), str(params.get("word", "please")))


@pytest.fixture(autouse=True)
def fake_kind() -> Iterator[None]:
    register("fake", build)
    yield
    unregister("fake")


@pytest.fixture(scope="session")
def real_data() -> Path:
    given = os.environ.get("NORMA_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (folder / "ifeval").is_dir():
        pytest.skip("no real data sets here: set NORMA_TEST_DATA to a folder that holds them")
    return folder


HEAD = """norma: 1
spec: {id: t, version: "1.10", source_language: en, languages: [en]}
rules:
"""


@pytest.fixture
def make() -> Callable[..., Spec]:
    """``make(rule, rule, ..., compose=...)``: a spec of flow-style rules; id and statement a dummy unless given; a fake checker each."""

    def make(*rules: str, compose: str = "", head: str = HEAD) -> Spec:
        lines = [
            f"- {{{rule}, statement: {{en: Rule.}}"
            + ("" if "checkers:" in rule else ", checkers: [{id: c, kind: fake, use: graded}]")
            + "}"
            for rule in rules
        ]
        return Spec.parse(head + "\n".join(lines) + "\n" + (f"compose: {compose}\n" if compose else ""), "t.yaml")

    return make


@pytest.fixture
def ask() -> Callable[..., Item]:
    def ask(text: str = "What does `json.dumps` do?", language: str = "en", **facts: Any) -> Item:
        return Item("i", ({"role": "user", "content": text},), language, facts)

    return ask
