"""A constitution (Bai et al., 2212.08073) whose principles are the spec's rules.

    question ─→ answer ─→ a rule, drawn ─→ critique ─→ revision ─→ ... ─→ conversation to learn from                   (section 3: SL-CAI)
    question ─→ two answers, a rule, drawn ─→ which keeps it better? asked in both orders ─→ pair with a soft label     (section 4: RL-CAI)

The critic is a model, which writes both (:mod:`norma.align.authors`), or the spec's own checkers: then the critique is what they found,
and the revision is :func:`norma.check.repair.repair`. Judges of pairs likewise. Every row says who said it, under which rule and which
meaning of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from norma.align.authors import Author
from norma.align.constitution_prompts import comparison, critique_request, revision_request
from norma.check.repair import corrector_digest, marks, repair
from norma.spec import Item, Spec, Status, Verdict
from norma.spec.shown import drawn

CHECKERS = "checkers"  # the name of the spec's own checkers as critic and as judge
KEPT = (Status.COMPLIANT, Status.NOT_APPLICABLE)


@dataclass
class Draft:
    """An answer on its way: ``journal`` holds a row for every critique."""

    item: Item
    answer: str
    journal: list[dict[str, Any]] = field(default_factory=list)

    @property
    def revised(self) -> bool:
        return any(row["accepted"] for row in self.journal)


def draw_rule(spec: Spec, item: Item, among: Sequence[str], seed: int, use: str) -> str | None:
    """One of the rules, by the item and ``use`` alone; None where there is none."""
    return among[int(drawn(item, seed, use).integers(len(among)))] if among else None


def draw_order(item: Item, among: Sequence[str], seed: int, use: str) -> list[str]:
    """All of the rules in a drawn order."""
    return [among[i] for i in drawn(item, seed, use).permutation(len(among)).tolist()]


# ── critique and revision ──
def revise(
    spec: Spec, drafts: Sequence[Draft], critic: Author | None, number: int, *, seed: int, verify: bool, max_edit_ratio: float = 1.0
) -> None:
    """One round over all drafts, in place: a drawn rule, a critique, a revision where there is something to revise.

    Args:
        critic: who criticises and writes; None: the checkers, which draw among the rules that they find broken.
        verify: a revision stands only where the train checkers find that it keeps the drawn rule and breaks none that was kept.
    """
    if critic is None:
        for draft in drafts:
            _by_checkers(spec, draft, number, seed, max_edit_ratio)
    else:
        _by_author(spec, drafts, critic, number, seed, verify)


def _row(spec: Spec, draft: Draft, rule: str, number: int, critic: str, critique: str | None) -> dict[str, Any]:
    item = draft.item
    return {
        "id": item.id,
        "source": item.source,
        "language": item.language,
        "round": number,
        "rule": rule,
        "rule_hash": spec.rule(rule).hash,
        "messages": [dict(m) for m in item.messages],
        "answer": draft.answer,
        "critic": critic,
        "critique": critique,
        "revision": None,
        "accepted": False,
        "why": "",
    }


def _by_checkers(spec: Spec, draft: Draft, number: int, seed: int, max_edit_ratio: float) -> None:
    broken: dict[str, list[Verdict]] = {}
    for verdict in spec.verdicts(draft.item, draft.answer, "train"):
        if verdict.status is Status.VIOLATION:
            broken.setdefault(verdict.rule, []).append(verdict)
    rule = draw_rule(spec, draft.item, list(broken), seed, f"critique {number}")
    if rule is None:
        return
    notes = "; ".join(f"{v.checker}: {v.note or 'violation'}" for v in broken[rule])
    row = _row(spec, draft, rule, number, CHECKERS, notes)
    row["revision"] = repair(spec, draft.item, draft.answer, [rule], max_edit_ratio=max_edit_ratio)
    row |= {"accepted": row["revision"] is not None, "by": f"repair:{corrector_digest()[:12]}"}
    row["why"] = "" if row["accepted"] else "no program could mend it"
    _take(draft, row)


def _by_author(spec: Spec, drafts: Sequence[Draft], critic: Author, number: int, seed: int, verify: bool) -> None:
    rules = [draw_rule(spec, d.item, spec.resolve(d.item).active, seed, f"critique {number}") for d in drafts]
    work = [(draft, spec.rule(rule)) for draft, rule in zip(drafts, rules, strict=True) if rule is not None]
    critiques = critic.write(
        [critique_request(d.item.messages, d.answer, r, d.item.language) for d, r in work], seed=_stream(seed, number, 0)
    )
    said = [(d, r, c) for (d, r), c in zip(work, critiques, strict=True) if c is not None]
    revisions = iter(
        critic.write(
            [revision_request(d.item.messages, d.answer, c, r, d.item.language) for d, r, c in said], seed=_stream(seed, number, 1)
        )
    )
    for (draft, rule), critique in zip(work, critiques, strict=True):
        row = _row(spec, draft, rule.id, number, critic.name, critique)
        row["revision"] = None if critique is None else next(revisions)
        row["why"] = _refused(spec, draft, row["revision"], rule.id, verify) if critique is not None else "no critique"
        row["accepted"] = not row["why"]
        _take(draft, row)


def _refused(spec: Spec, draft: Draft, revision: str | None, rule: str, verify: bool) -> str:
    """Why a revision does not stand; "" where it does."""
    if revision is None:
        return "no revision"
    if not verify:
        return ""
    before, after = marks(spec, draft.item, draft.answer), marks(spec, draft.item, revision)
    if after.get(rule, Status.COMPLIANT) is not Status.COMPLIANT:
        return f"it does not keep {rule}"
    worse = [r for r, status in after.items() if before[r] is Status.COMPLIANT and status is not Status.COMPLIANT]
    return f"it breaks {worse[0]}" if worse else ""


def _take(draft: Draft, row: dict[str, Any]) -> None:
    draft.journal.append(row)
    if row["accepted"]:
        draft.answer = row["revision"]


def _stream(seed: int, number: int, turn: int) -> int:
    """A seed of its own for each round's critiques and revisions."""
    return (seed << 16) + 2 * number + turn


def learnable(spec: Spec, draft: Draft) -> bool:
    """Whether a draft is worth learning: it was revised, or kept every rule as it was."""
    return draft.revised or all(v.status in KEPT for v in spec.verdicts(draft.item, draft.answer, "train"))


def conversation(draft: Draft) -> dict[str, Any]:
    """A row for supervised fine-tuning: the question without any rule, and the last revision."""
    item, steps = draft.item, [row for row in draft.journal if row["accepted"]]
    return {
        "id": item.id,
        "source": item.source,
        "language": item.language,
        "messages": [*map(dict, item.messages), {"role": "assistant", "content": draft.answer}],
        "rules": [row["rule"] for row in steps],
        "critics": sorted({row["critic"] for row in steps}),
    }


# ── comparisons ──
Judge = Callable[[Sequence[tuple[Item, str, str, str]]], list[tuple[float, float] | None]]
"""(item, a, b, rule) → P(a is better) as asked in this order and in the other; None where it cannot be told."""


def checkers_judge(spec: Spec) -> Judge:
    """(1 + score of a - score of b) / 2 under the rule's train checkers, the lowest of them; an unsure or failed verdict tells nothing."""

    def score(item: Item, answer: str, rule: str) -> float | None:
        found = [v for v in spec.verdicts(item, answer, "train") if v.rule == rule]
        values = [v.score for v in found if v.status in (Status.COMPLIANT, Status.VIOLATION)]
        return min(v for v in values if v is not None) if found and len(values) == len(found) and None not in values else None

    def judge(asked: Sequence[tuple[Item, str, str, str]]) -> list[tuple[float, float] | None]:
        found: list[tuple[float, float] | None] = []
        for item, a, b, rule in asked:
            first, second = score(item, a, rule), score(item, b, rule)
            p = None if first is None or second is None else (1 + first - second) / 2
            found.append(None if p is None else (p, p))
        return found

    return judge


def author_judge(spec: Spec, author: Author) -> Judge:
    """A model is asked twice, the answers in both orders: models prefer a place, whatever stands there."""

    def judge(asked: Sequence[tuple[Item, str, str, str]]) -> list[tuple[float, float] | None]:
        def prompts(swapped: bool) -> list[list[Any]]:
            sides = [(i, b, a, r) if swapped else (i, a, b, r) for i, a, b, r in asked]
            return [comparison(i.messages, a, b, spec.rule(r), i.language) for i, a, b, r in sides]

        straight, swapped = author.prefer(prompts(False)), author.prefer(prompts(True))
        return [None if p is None or q is None else (p, 1 - q) for p, q in zip(straight, swapped, strict=True)]

    return judge


def compare(
    spec: Spec, pairs: Sequence[tuple[Item, str, str]], judge: Judge, name: str, *, draws: int, least: float, seed: int
) -> list[dict[str, Any]]:
    """A row for every comparison that was asked: of each pair under one drawn rule, and under another while nothing is told apart.

    Args:
        draws: rules that are tried at most.
        least: how far from a half the label must be.
    """
    orders = [draw_order(item, spec.resolve(item).active, seed, "compare") for item, _, _ in pairs]
    rows: list[dict[str, Any]] = []
    open_pairs = [i for i, (_, a, b) in enumerate(pairs) if a != b]
    for turn in range(draws):
        asked = [i for i in open_pairs if turn < len(orders[i])]
        answers = judge([(*pairs[i], orders[i][turn]) for i in asked])
        for i, both in zip(asked, answers, strict=True):
            row = _compared(spec, pairs[i], orders[i][turn], name, both, least)
            rows.append(row)
            if row["chosen"]:
                open_pairs.remove(i)
    return rows


def _compared(
    spec: Spec, pair: tuple[Item, str, str], rule: str, judge: str, both: tuple[float, float] | None, least: float
) -> dict[str, Any]:
    item, a, b = pair
    label = None if both is None else (both[0] + both[1]) / 2
    chosen = None if label is None or abs(label - 0.5) <= least else "a" if label > 0.5 else "b"
    return {
        "id": item.id,
        "source": item.source,
        "language": item.language,
        "messages": [dict(m) for m in item.messages],
        "a": a,
        "b": b,
        "rule": rule,
        "rule_hash": spec.rule(rule).hash,
        "judge": judge,
        "orders": None if both is None else list(both),
        "label": label,
        "chosen": chosen,
    }


def pair_rows(comparisons: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Preference pairs of the comparisons that told their answers apart. ``label``: P(chosen is better); ``margin``: 2 label - 1."""
    for row in comparisons:
        if row["chosen"]:
            first = row["chosen"] == "a"
            label = row["label"] if first else 1 - row["label"]
            sides = {"chosen": row["a" if first else "b"], "rejected": row["b" if first else "a"]}
            head = {key: row[key] for key in ("id", "source", "language", "messages")}
            yield {
                **head,
                **sides,
                "margin": 2 * label - 1,
                "label": label,
                "rule": row["rule"],
                "rule_hash": row["rule_hash"],
                "judge": row["judge"],
            }


def contradictions(comparisons: Sequence[dict[str, Any]]) -> float | None:
    """Share of the comparisons in which the judge chose another answer when their order changed; None where nothing was asked."""
    told = [row["orders"] for row in comparisons if row["orders"] is not None]
    return sum((first - 0.5) * (second - 0.5) < 0 for first, second in told) / len(told) if told else None
