"""What changed between two versions of a spec, rule by rule and facet by facet, and what each change makes stale. No run is looked at.

Spec A, Spec B ─pair by id, else by alias─→ RuleChange: added | removed | renamed | changed ─→ Changed(facet, stale, editorial)
                + items ─────────────────→ flips: inputs whose predicate, or whose standing, is another now

| changed                 | stale                                                                       |
| meaning                 | labels, corrections, classifier, training rows, report (editorial: a spot check) |
| wording of one language | that language's rendered prompts; labels stay                               |
| scope                   | only the items whose predicate flips                                        |
| authority               | pairs and rewards whose status flips                                        |
| check                   | its scores; retraining only if it was in the reward                         |
| compose                 | the reward is replayed from stored scores; retrain                          |
| examples                | the lint of examples, elicited answers                                      |
| rename with alias       | labels only relabelled                                                      |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from norma.base.hashing import canonical
from norma.spec.rule import Rule, parts
from norma.spec.spec import Spec
from norma.spec.types import Item, Standing

Kind = Literal["added", "removed", "renamed", "changed"]

STALE = {
    "meaning": ("labels", "corrections", "classifier", "training rows", "report"),
    "editorial": ("spot check",),
    "wording": ("rendered prompts",),
    "scope": ("items that flip",),
    "authority": ("pairs and rewards that flip",),
    "check": ("scores",),
    "check, in the reward": ("scores", "training"),
    "compose": ("rewards, replayed from stored scores", "training"),
    "target": ("gate",),
    "examples": ("elicited answers",),
    "added": ("everything is to be made",),
    "removed": ("labels", "training rows", "report"),
    "renamed": ("labels, to be relabelled",),
}


@dataclass(frozen=True)
class Changed:
    """One facet of one rule. ``before`` and ``after``: its contents; ``stale``: what follows; ``note``: why it is less or more."""

    facet: str
    before: Any
    after: Any
    stale: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class RuleChange:
    """What became of one rule. ``old`` is "" for an added rule, ``new`` "" for a removed one."""

    kind: Kind
    old: str
    new: str
    changes: tuple[Changed, ...] = ()

    @property
    def rule(self) -> str:
        return self.new or self.old


@dataclass(frozen=True)
class SpecDiff:
    """All that changed; empty when the two say the same. ``whole``: changes of the spec as a whole (levels, composition, languages)."""

    rules: tuple[RuleChange, ...]
    whole: tuple[Changed, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules or self.whole)

    def row(self) -> dict[str, Any]:
        """The diff as one JSON object."""

        def shown(changes: Sequence[Changed]) -> list[dict[str, Any]]:
            return [{"facet": c.facet, "before": c.before, "after": c.after, "stale": list(c.stale), "note": c.note} for c in changes]

        rules = [{"kind": r.kind, "old": r.old, "new": r.new, "changes": shown(r.changes)} for r in self.rules]
        return {"rules": rules, "spec": shown(self.whole)}


@dataclass
class Flips:
    """Items on which a change shows. ``predicate``: rule (new id) -> ids of items whose `applies` says another thing now; ``standing``:
    the same for the outcome of conflict resolution."""

    predicate: dict[str, set[str]] = field(default_factory=dict)
    standing: dict[str, set[str]] = field(default_factory=dict)


def diff(old: Spec, new: Spec) -> SpecDiff:
    """The changes from ``old`` to ``new``, in the order of the new file, removed rules last."""
    pairs = pair(old, new)
    taken = {before.id for before in pairs.values() if before is not None}
    names = {before.id: after for after, before in pairs.items() if before is not None}
    found = []
    for rule in new.rules:
        before = pairs[rule.id]
        if before is None:
            found.append(RuleChange("added", "", rule.id, (Changed("rule", None, _meaning(rule), STALE["added"]),)))
            continue
        changes = tuple(_facets(old, new, before, rule, names))
        if before.id != rule.id:
            named = Changed("id", before.id, rule.id, STALE["renamed"])
            found.append(RuleChange("renamed", before.id, rule.id, (named, *changes)))
        elif changes:
            found.append(RuleChange("changed", before.id, rule.id, changes))
    for rule in old.rules:
        if rule.id not in taken:
            found.append(RuleChange("removed", rule.id, "", (Changed("rule", _meaning(rule), None, STALE["removed"]),)))
    return SpecDiff(tuple(found), tuple(_whole(old, new)))


def pair(old: Spec, new: Spec) -> dict[str, Rule | None]:
    """New id -> the old rule it goes on from: of the same id, else of an id that it names as an alias, else None."""
    before = {rule.id: rule for rule in old.rules}
    kept = {rule.id for rule in new.rules}
    return {
        rule.id: before.get(rule.id) or next((before[a] for a in rule.aliases if a in before and a not in kept), None) for rule in new.rules
    }


def flips(old: Spec, new: Spec, items: Iterable[Item]) -> Flips:
    """Where the two versions disagree, for every rule that both have."""
    found = Flips()
    pairs = [(after, before.id) for after, before in pair(old, new).items() if before is not None]
    names = {before: after for after, before in pairs}
    for item in items:
        was, now = old.resolve(item).statuses, new.resolve(_renamed(item, names)).statuses
        for after, before in pairs:
            if old.applies(before, item) is not new.applies(after, item):
                found.predicate.setdefault(after, set()).add(item.id)
            if was[before].status is not now[after].status:
                found.standing.setdefault(after, set()).add(item.id)
    return found


def _renamed(item: Item, names: dict[str, str]) -> Item:
    """The item with the rules that its trusted overrides name under their new ids; rules that are gone need no override."""
    overrides = item.facts.get("overrides")
    if not isinstance(overrides, dict):
        return item
    facts = {**item.facts, "overrides": {names[rule]: role for rule, role in overrides.items() if rule in names}}
    return Item(item.id, item.messages, item.language, facts, item.cluster, item.reference)


def newly(old: Spec, new: Spec, items: Iterable[Item], rule: str) -> set[str]:
    """Ids of the items for which an added (or removed) rule is active."""
    spec = new if any(r.id == rule for r in new.rules) else old
    return {item.id for item in items if spec.resolve(item).statuses[rule].status is Standing.ACTIVE}


def _facets(old: Spec, new: Spec, before: Rule, after: Rule, names: dict[str, str]) -> Iterable[Changed]:
    a = parts(before, old.source_language, _budget(old, before))
    b = parts(after, new.source_language, _budget(new, after))
    a["authority"] = {k: sorted(names.get(v, v) for v in part) if isinstance(part, list) else part for k, part in a["authority"].items()}
    signed = [e for e in after.editorial if before.hash.startswith(e.was)]
    source = f"wording.{new.source_language}"
    for facet in dict.fromkeys([*a, *b]):
        was: Any = a.get(facet)
        now: Any = b.get(facet)
        if canonical(was) == canonical(now):
            continue
        head = facet.partition(".")[0]
        if facet == "meaning" and signed:
            e = signed[0]
            yield Changed(facet, was, now, STALE["editorial"], f"editorial, signed by {e.by} ({e.reason}; {e.spot_check} labels checked)")
        elif head == "wording":
            note = "source wording" if facet == source else "" if was else "a new language" if now else "the language is gone"
            yield Changed(facet, was, now, STALE["wording"], note)
        elif facet == "check":
            train = any("train" in c["roles"] for c in _differing(was, now))
            yield Changed(facet, was, now, STALE["check, in the reward" if train else "check"], "" if train else "not in the reward")
        elif facet == "compose":
            only = {k for k in {*was, *now} if canonical(was.get(k)) != canonical(now.get(k))}
            if only == {"target"}:
                yield Changed(facet, was["target"], now["target"], STALE["target"], "only the demanded rate")
            elif only - {"must"}:  # must is a matter of authority, too, and told there
                yield Changed(facet, {k: was.get(k) for k in sorted(only)}, {k: now.get(k) for k in sorted(only)}, STALE["compose"])
            else:
                yield Changed(facet, {"must": was["must"]}, {"must": now["must"]}, STALE["compose"], "the gate")
        else:
            yield Changed(facet, was, now, STALE[head])


def _differing(was: list[dict[str, Any]], now: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checkers that stand on one side only, or otherwise there."""
    a, b = ({canonical(c): c for c in side} for side in (was, now))
    return [c for key, c in {**a, **b}.items() if (key in a) != (key in b)]


def _budget(spec: Spec, rule: Rule) -> float | None:
    constraint = spec.composition.constraints.get(rule.id)
    return None if constraint is None else constraint.budget


def _meaning(rule: Rule) -> str:
    return " ".join(rule.statement[rule.source_language].split())


def _whole(old: Spec, new: Spec) -> Iterable[Changed]:
    if old.levels != new.levels:
        yield Changed("levels", list(old.levels), list(new.levels), STALE["authority"])
    if old.source_language != new.source_language:
        yield Changed("source_language", old.source_language, new.source_language, STALE["meaning"], "another wording is the meaning now")
    if old.languages != new.languages:
        yield Changed("languages", list(old.languages), list(new.languages), STALE["wording"])
    for key in ("objective", "kappa", "grid"):
        was, now = getattr(old.composition, key), getattr(new.composition, key)
        if was != now:
            yield Changed(f"compose.{key}", was, now, STALE["compose"])
