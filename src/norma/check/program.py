"""What a program checker is: a pure function of (item, visible text, parameters) that gives a score; everything else is done here, once.

    response ─visible─→ text ─┬─ nothing in it, or only the question echoed ─→ score 0
                              └─ the program's function ─→ Outcome(score) ─threshold─→ Finding(status, score, evidence in the response)

A program cannot say "not applicable" (that is the spec's to decide) and cannot pass an answer in which nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from norma.base.hashing import digest
from norma.check.segment import family, says_something, visible
from norma.check.source_digest import code_digest
from norma.spec.types import Finding, Item, Spans, Status

# The attacks that a program may promise to catch, beyond the ones caught here for all of them (see metamorphic.py).
ATTACKS = ("boilerplate", "repetition", "other_language")


class Params(BaseModel):
    """Parameters of a program: unknown keys are errors, text scalars become numbers and truth values where those are declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Outcome:
    """What a program's function found: ``score`` in [0, 1] (1 is best), spans of the visible text, and why in a few words."""

    score: float
    evidence: Spans = ()
    note: str = ""
    margin: float | None = None


P = TypeVar("P", bound=Params)
Function = Callable[[Item, str, P], Outcome]


@dataclass(frozen=True)
class Program:
    """One entry of the registry. ``threshold``: the score from which on an answer complies; ``packages``: whose versions may change it."""

    name: str
    run: Callable[[Item, str, Any], Outcome]
    params: type[Params]
    languages: frozenset[str]
    catches: frozenset[str]
    threshold: float
    packages: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for people: the first line of the function's docstring."""
        return (self.run.__doc__ or "").strip().split("\n")[0]


REGISTRY: dict[str, Program] = {}


def program(
    name: str,
    params: type[P],
    *,
    languages: tuple[str, ...] = (),
    catches: tuple[str, ...] = (),
    threshold: float = 1.0,
    packages: tuple[str, ...] = (),
) -> Callable[[Function[P]], Function[P]]:
    """Register a function as the program checker ``name``; no ``languages`` means every language.

    ``packages``: distributions that carry a model or rules of their own; their versions are part of the digest.
    """

    def register(run: Function[P]) -> Function[P]:
        assert name not in REGISTRY, f"two program checkers are named {name}"
        assert set(catches) <= set(ATTACKS), catches
        REGISTRY[name] = Program(name, run, params, frozenset(languages), frozenset(catches), threshold, packages)
        return run

    return register


class ProgramChecker:
    """A program with its parameters bound: what the spec calls. Pure: equal arguments give equal findings."""

    def __init__(self, entry: Program, params: Params) -> None:
        self.id = entry.name
        self.languages = entry.languages
        self.program, self.params = entry, params
        values: Mapping[str, Any] = params.model_dump(mode="json")
        code = code_digest(entry.run, entry.params, ProgramChecker.check)
        parts = ["program", entry.name, values, sorted(entry.languages), entry.threshold, code, *map(installed, entry.packages)]
        self.digest = digest(parts)

    def check(self, item: Item, response: str) -> Finding:
        """Judge one response; never raises."""
        if self.languages and family(item.language) not in self.languages:
            return Finding(Status.ERROR, note=f"'{self.id}' does not read the language {item.language}")
        said = hollow(item, response)
        if said is not None:
            return said
        text, offset = visible(response)
        outcome = self.program.run(item, text, self.params)
        status = Status.COMPLIANT if outcome.score >= self.program.threshold else Status.VIOLATION
        evidence = tuple((start + offset, end + offset) for start, end in outcome.evidence)
        return Finding(status, outcome.score, evidence, outcome.note, outcome.margin)

    def __repr__(self) -> str:
        return f"ProgramChecker({self.id}, {self.params!r})"


def installed(package: str) -> str:
    """A distribution and its version, or that it is missing."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} missing"


def hollow(item: Item, response: str) -> Finding | None:
    """The finding on an answer that says nothing, or only echoes the question: no checker may pass it. None for any other answer."""
    text, _ = visible(response)
    if not says_something(text):
        return Finding(Status.VIOLATION, 0.0, note="the answer says nothing")
    if is_echo(item, text):
        return Finding(Status.VIOLATION, 0.0, note="the answer is the question")
    return None


def is_echo(item: Item, text: str) -> bool:
    """Whether the answer is nothing but the question (a word or two may well be answered by themselves)."""
    said = re.sub(r"\s+", " ", text).strip()
    return len(said) >= 12 and said == re.sub(r"\s+", " ", item.user).strip()
