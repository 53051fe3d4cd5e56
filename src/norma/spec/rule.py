"""A loaded rule: the file's entry plus a hash per facet, so that a change tells what it makes stale.

meaning (source wording) · wording.<language> · scope · authority · check · compose · examples. Layout, key order, the rule's id and
the order of names in lists that mean sets never matter; nor does white space in prose and between the tokens of `applies`.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from norma.base.hashing import digest
from norma.spec import languages
from norma.spec.schema import Mode, RuleEntry, plain

Translation = Literal["source", "current", "stale", "unrecorded", "missing"]


class Rule(RuleEntry):
    """One rule with its hashes. ``facets``: facet -> SHA-256; ``source_language``: the language whose wording is the meaning."""

    facets: dict[str, str]
    source_language: str
    constrained: bool = False  # named in compose.constraints

    @property
    def hash(self) -> str:
        """The meaning hash: labels and verdicts belong to this, not to the rule's name."""
        return self.facets["meaning"]

    @property
    def mode(self) -> Mode:
        """The part in R(x, y), default filled in. ``must`` is the only gate switch: it wins over a disagreeing ``reward.mode`` (lint)."""
        if self.must:
            return Mode.GATE
        default = Mode.CONSTRAINT if self.constrained else Mode.WEIGHTED
        return default if self.reward.mode in (None, Mode.GATE) else self.reward.mode

    def means(self, hash: str) -> bool:
        """True when a label or verdict with this meaning hash is about this rule: its own, or one that an `editorial` entry signs for."""
        return hash == self.hash or any(hash.startswith(e.was) for e in self.editorial)

    def translation(self, language: str) -> Translation:
        """How the statement in ``language`` stands to the source wording. A signed editorial change makes no translation stale."""
        if language == self.source_language:
            return "source"
        if language not in self.statement:
            return "missing"
        entry = self.translations.get(language)
        if entry is None:
            return "unrecorded"
        return "current" if self.hash.startswith(entry.of) or any(_same_hash(entry.of, e.was) for e in self.editorial) else "stale"

    def text(self, language: str) -> str:
        """The statement in ``language``, or in the language nearest to it, or in the source language."""
        return self.statement[languages.best(language, self.statement) or self.source_language]


def rule_from(entry: RuleEntry, source_language: str, budget: float | None = None) -> Rule:
    """The entry with its facet hashes. ``budget``: what `compose.constraints` grants the rule; None: it is not named there."""
    values = {name: getattr(entry, name) for name in RuleEntry.model_fields}
    hashes = facets(entry, source_language, budget)
    return Rule.model_construct(**values, facets=hashes, source_language=source_language, constrained=budget is not None)


def facets(entry: RuleEntry, source_language: str, budget: float | None = None) -> dict[str, str]:
    """A hash for each facet of a rule."""
    return {name: digest([name.partition(".")[0], part]) for name, part in parts(entry, source_language, budget).items()}


def parts(entry: RuleEntry, source_language: str, budget: float | None = None) -> dict[str, Any]:
    """What each facet is made of, as JSON values in one normal form."""
    e: dict[str, Any] = plain(entry)
    compose = {k: e[k] for k in ("must", "reward", "target", "correct")}
    return {
        "meaning": _prose(e["statement"][source_language]),
        **{f"wording.{tag}": _prose(text) for tag, text in e["statement"].items()},
        "scope": _expression(e["applies"]),
        "authority": {k: sorted(e[k]) if isinstance(e[k], list) else e[k] for k in _AUTHORITY},
        "check": sorted(({**c, "roles": sorted(c["roles"])} for c in e["checkers"]), key=lambda c: str(c["id"])),
        "compose": compose if budget is None else {**compose, "budget": budget},
        "examples": {k: e[k] for k in ("examples", "elicit")},
    }


_AUTHORITY = ("level", "must", "unless", "overrides", "conflicts_with", "priority")
# Of an expression: texts (raw, bytes and triple-quoted ones too), comments, words and numbers, white space, any other character.
_TOKEN = re.compile(
    r"""(?s)([rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'))"""
    r"""|(//[^\n]*)|(\d[\w.]*|\w+)|(\s+)|(.)"""
)


def _prose(text: str) -> str:
    """White space is layout, not meaning."""
    return " ".join(text.split())


def _expression(text: str) -> str:
    """The tokens of an expression: white space between them and comments are layout, texts stay as they are."""
    kept = [m for m in _TOKEN.finditer(text) if not m[2] and not m[4]]
    glued = ""
    for before, token in zip([None, *kept], kept, strict=False):
        words = before is not None and before[3] and (token[3] or token[1])  # `x in y` must not become `xiny`
        glued += (" " if words else "") + token[0]
    return glued


def _same_hash(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
