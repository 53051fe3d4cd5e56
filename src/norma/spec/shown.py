"""Which rules stand in a prompt, in which order, language and place: instructive prompting as options.

none  ·  rule (one that applies, drawn)  ·  applicable (all that apply)  ·  all  ·  those named ─→ ordered ─→ rendered
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from norma.base.hashing import digest
from norma.base.random import keyed
from norma.spec.types import Item, Message

if TYPE_CHECKING:
    from norma.spec.spec import Spec

Choice = Literal["none", "rule", "applicable", "all"]
Order = Literal["file", "reversed", "authority", "shuffled"]


class Layout(BaseModel):
    """How rules stand in a prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: Order | None = Field(
        None,
        description="Order of the rules: file (the spec's, by default), reversed, authority (highest level and musts first), shuffled.",
    )
    language: str | None = Field(None, description="Language of the rules' wording (BCP-47); by default the question's.")
    position: Literal["system", "prefix"] | None = Field(
        None, description="system message (by default), or prefix: at the head of the last question."
    )


class Shown(Layout):
    """Which rules stand in a prompt, and how."""

    rules: Choice | list[str] = Field(
        "applicable", description="none; rule: one that applies, drawn; applicable: all that apply; all; or ids, in that order."
    )


def chosen(spec: Spec, item: Item, rules: Choice | Sequence[str], seed: int = 0) -> list[str]:
    """The rules that ``rules`` means for ``item``; a drawn one depends on the item's id and ``seed`` alone."""
    if not isinstance(rules, str):
        return [spec.rule(rule).id for rule in rules]
    if rules == "none":
        return []
    if rules == "all":
        return [rule.id for rule in spec.rules]
    active = list(spec.resolve(item).active)
    if rules == "applicable" or not active:
        return active
    return [active[int(drawn(item, seed, "rule").integers(len(active)))]]


def ordered(spec: Spec, item: Item, rules: Sequence[str], order: Order | None, seed: int = 0) -> list[str]:
    """``rules`` in the order in which the prompt says them; None leaves them as they are."""
    if order is None:
        return list(rules)
    place = {rule.id: number for number, rule in enumerate(spec.rules)}
    found = sorted(rules, key=place.__getitem__)
    if order == "reversed":
        return found[::-1]
    if order == "authority":
        return sorted(found, key=lambda id: (spec.levels.index(spec.rule(id).level), not spec.rule(id).must))
    if order == "shuffled":
        return [found[i] for i in drawn(item, seed, "order").permutation(len(found)).tolist()]
    return found


def told(spec: Spec, item: Item, shown: Shown, seed: int = 0) -> list[Message]:
    """The item's messages with the rules in front."""
    return laid_out(spec, item, chosen(spec, item, shown.rules, seed), shown, seed)


def laid_out(spec: Spec, item: Item, rules: Sequence[str], layout: Layout, seed: int = 0) -> list[Message]:
    """The item's messages with just these ``rules`` in front."""
    names = ordered(spec, item, rules, layout.order, seed)
    return spec.render(list(item.messages), item, layout.language, rules=names, position=layout.position or "system")


def drawn(item: Item, seed: int, use: str) -> np.random.Generator:
    """The random numbers of an item: they depend on its id, ``seed`` and ``use`` alone, never on other items."""
    return keyed(seed, int(digest([item.id])[:15], 16), use=use)
