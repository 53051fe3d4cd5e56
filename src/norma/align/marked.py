"""Marks of a label store, people's and checkers', as rows to learn from.

    labels, inputs ─→ one verdict for each answer and rule: people's marks before checkers' ─→ Answer
        ├→ marks   desirable: every active rule complies; undesirable: one is violated; else left out            (KTO)
        ├→ pairs   an answer that keeps more rules over one to the same input that keeps fewer and no other      (dominance)
        └→ pairs   what people wrote in its place over the answer they corrected
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from norma.labels import Label
from norma.labels.consensus import consensus
from norma.labels.rows import current
from norma.labels.training import corrections
from norma.spec import Item, Spec, Status

_DECIDED = (Status.COMPLIANT, Status.VIOLATION, Status.NOT_APPLICABLE)
FEWEST_DESIRABLE = 0.1  # a smaller share teaches KTO what to avoid and nothing else: dominance pairs are used


@dataclass(frozen=True)
class Answer:
    """One answer with what was said of it under every rule, and by whom."""

    item: Item
    text: str
    rules: Mapping[str, Status]
    marked_by: str  # human, checker, judge; with + where there are several
    missing: tuple[str, ...] = ()  # active rules that nobody decided

    @property
    def desirable(self) -> bool | None:
        if Status.VIOLATION in self.rules.values():
            return False
        return True if not self.missing and Status.COMPLIANT in self.rules.values() else None


@dataclass
class MarkedAnswers:
    """Answers in the order of their labels, and why labels gave none."""

    answers: list[Answer] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def decided(self) -> list[Answer]:
        return [a for a in self.answers if a.desirable is not None]

    @property
    def desirable_share(self) -> float:
        return sum(a.desirable is True for a in self.decided) / max(1, len(self.decided))


def marked_answers(labels: Iterable[Label], items: Mapping[str, Item], spec: Spec | None = None) -> MarkedAnswers:
    """One verdict for each answer and rule. Stale marks (of another meaning of the rule) count no more where there is a spec.

    With a spec every rule that is active for the input, and has a checker or a mark anywhere, must be decided; without one the rules
    that somebody marked.
    """
    meanings = None if spec is None else {rule.id: rule.hash for rule in spec.rules}
    grouped: dict[tuple[str, str], dict[str, list[Label]]] = defaultdict(lambda: defaultdict(list))
    found = MarkedAnswers()
    for label in current(labels):
        if meanings is not None and label.rule_hash and meanings.get(label.rule) != label.rule_hash:
            found.left_out["the rule is gone, or has changed its meaning since"] += 1
        elif label.item not in items:
            found.left_out["its input is not in the store"] += 1
        else:
            grouped[label.item, label.response][label.rule].append(label)
    marked = {rule for rules in grouped.values() for rule in rules}
    for (item, text), rules in grouped.items():
        said: dict[str, Status] = {}
        sources: set[str] = set()
        for rule, marks in sorted(rules.items()):
            counted = preferred(marks)
            said[rule] = consensus(counted)
            sources |= {m.source for m in counted if m.verdict in _DECIDED}
        active = marked & set(spec.resolve(items[item]).active) if spec is not None else set(rules)
        missing = tuple(sorted(r for r in active if said.get(r) not in _DECIDED))
        decided = {rule: status for rule, status in said.items() if status in _DECIDED}
        found.answers.append(Answer(items[item], text, decided, "+".join(sorted(sources)), missing))
    return found


def preferred(marks: list[Label]) -> list[Label]:
    """People's marks where any of them decided, else all: a person who looked knows better than a program."""
    people = [m for m in marks if m.source == "human" and m.verdict in _DECIDED]
    return people or marks


def mark_rows(
    found: MarkedAnswers, scores: Mapping[tuple[str, str], float] | None = None, cut: Collection[tuple[str, str]] = ()
) -> list[dict[str, Any]]:
    """Rows of marks files.

    Args:
        scores: R(x, y) by (item, answer), where it is known.
        cut: (item, answer) that did not come to an end: undesirable, whatever rules they keep.
    """
    rows = []
    for answer in found.decided:
        finished = (answer.item.id, answer.text) not in cut
        if not answer.text.strip() and answer.desirable:
            continue  # nothing was said, and no rule minded
        rules = {rule: s is Status.COMPLIANT for rule, s in answer.rules.items() if s is not Status.NOT_APPLICABLE}
        row = _about(answer.item) | {"answer": answer.text, "desirable": bool(answer.desirable) and finished, "rules": rules}
        score = (scores or {}).get((answer.item.id, answer.text))
        rows.append(row | ({} if score is None else {"score": score}) | {"marked_by": answer.marked_by})
    return rows


def dominance_pairs(found: MarkedAnswers) -> list[dict[str, Any]]:
    """Pairs of answers to one input of which the first keeps every decided rule that the second keeps, and at least one more.

    Each worse answer is paired with the one that dominates it by most rules, the first of equals: one pair for each answer.
    """
    by_item: dict[str, list[Answer]] = defaultdict(list)
    for answer in found.answers:
        by_item[answer.item.id].append(answer)
    rows = []
    for answers in by_item.values():
        for worse in answers:
            gains = [(lead(better, worse), better) for better in answers if better.text.strip() and worse.text.strip()]
            most, better = max(gains, key=lambda gain: gain[0], default=(0, worse))
            if most > 0:
                rows.append(pair_row(better.item, better.text, worse.text) | {"margin": float(most), "marked_by": better.marked_by})
    return rows


def lead(a: Answer, b: Answer) -> int:
    """How many rules ``a`` keeps that ``b`` breaks; 0 where ``b`` keeps one that ``a`` breaks, or other rules were marked."""
    if set(a.rules) != set(b.rules):
        return 0
    ahead = sum(b.rules[r] is Status.VIOLATION and a.rules[r] is not Status.VIOLATION for r in a.rules)
    behind = any(a.rules[r] is Status.VIOLATION and b.rules[r] is not Status.VIOLATION for r in a.rules)
    return 0 if behind else ahead


def corrected_pairs(labels: Iterable[Label], items: Mapping[str, Item], spec: Spec | None) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Corrected over original; with a spec only where no other rule gets worse by it (``norma.labels.training``)."""
    known = [label for label in current(labels) if label.corrected is not None]
    why: Counter[str] = Counter()
    if spec is not None:
        known, why = corrections(known, items, spec)
    rows = []
    seen: set[tuple[str, str, str]] = set()
    for label in known:
        place = (label.item, label.response, label.corrected or "")
        if label.item not in items or place in seen or label.corrected == label.response or not place[1].strip() or not place[2].strip():
            continue
        seen.add(place)
        rows.append(pair_row(items[label.item], place[2], label.response) | {"marked_by": label.source})
    return rows, why


def pair_row(item: Item, chosen: str, rejected: str) -> dict[str, Any]:
    """A row of a pairs file."""
    return _about(item) | {"chosen": chosen, "rejected": rejected}


def conversation_row(item: Item, answer: str) -> dict[str, Any]:
    """A row of a conversations file."""
    row = _about(item)
    return row | {"messages": [*row["messages"], {"role": "assistant", "content": answer}]}


def _about(item: Item) -> dict[str, Any]:
    row: dict[str, Any] = {"id": item.id, "source": item.source, "language": item.language, "messages": [dict(m) for m in item.messages]}
    return row | ({"facts": dict(item.facts)} if item.facts else {})
