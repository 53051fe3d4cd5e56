"""A loaded rule: the file's entry plus a hash per facet, so that a change tells what it makes stale.

meaning (source wording) · wording.<language> · scope · authority · check · compose · examples. Layout, key order, the rule's id and
the order of names in lists that mean sets never matter.
"""

from __future__ import annotations

from typing import Any

from norma.base.hashing import digest
from norma.spec import languages
from norma.spec.schema import Mode, RuleEntry


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

    def text(self, language: str) -> str:
        """The statement in ``language``, or in the language nearest to it, or in the source language."""
        return self.statement[languages.best(language, self.statement) or self.source_language]


def rule_from(entry: RuleEntry, source_language: str, constrained: bool = False) -> Rule:
    """The entry with its facet hashes."""
    values = {name: getattr(entry, name) for name in RuleEntry.model_fields}
    return Rule.model_construct(**values, facets=facets(entry, source_language), source_language=source_language, constrained=constrained)


def facets(entry: RuleEntry, source_language: str) -> dict[str, str]:
    """A hash for each facet of a rule."""
    e: dict[str, Any] = entry.model_dump(mode="json")
    parts: dict[str, Any] = {
        "meaning": _prose(e["statement"][source_language]),
        **{f"wording.{tag}": _prose(text) for tag, text in e["statement"].items()},
        "scope": e["applies"].strip(),
        "authority": {k: sorted(e[k]) if isinstance(e[k], list) else e[k] for k in _AUTHORITY},
        "check": sorted(({**c, "roles": sorted(c["roles"])} for c in e["checkers"]), key=lambda c: str(c["id"])),
        "compose": {k: e[k] for k in ("must", "reward", "target", "correct")},
        "examples": {k: e[k] for k in ("examples", "elicit")},
    }
    return {name: digest([name.partition(".")[0], part]) for name, part in parts.items()}


_AUTHORITY = ("level", "must", "unless", "overrides", "conflicts_with", "priority")


def _prose(text: str) -> str:
    """White space is layout, not meaning."""
    return " ".join(text.split())
