"""Which answers people mark next: four queues, each drawn for a reason of its own.

    marks so far ─candidates─→ Candidate rows ─draw(count, seed)─→ Drawn rows (queue, inclusion probability) ─→ people

| queue | share | what for |
|---|---|---|
| uniform | 30% for ever | the audit stream: every answer has the same known chance, so rates estimated from it are not biased (``audit``) |
| uncertain | 40% | checkers doubt, or annotators and checkers contradict each other |
| rare | 20% | predicted violations, those of rarely broken rules first |
| diverse | 10% | unlike everything that was chosen or marked so far |

The uniform queue is drawn first and looks at nothing but a number that seed and answer alone determine (a "permanent random number",
Ohlsson 1995), so that no prediction can bend it. The others take from what is left and from what no person has marked. Equal inputs and
seed give equal draws, whatever the order of the candidates.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from norma.base.errors import NormaError
from norma.base.hashing import digest
from norma.labels.diversity import farthest_first
from norma.labels.rows import Label, response_hash
from norma.spec.types import Status

SHARES: Mapping[str, float] = {"uniform": 0.3, "uncertain": 0.4, "rare": 0.2, "diverse": 0.1}
_RANKED = 4000  # candidates that the diverse queue compares: the first by their random numbers


@dataclass(frozen=True)
class Candidate:
    """One answer under one rule that people could mark.

    ``violation``: predicted probability of a violation, None without a prediction; ``disagreement``: 0 (all marks alike) to 1;
    ``marked``: a person has marked it. ``cluster``: the source of the prompt, for intervals.
    """

    item: str
    response: str
    rule: str
    rule_hash: str = ""
    language: str = ""
    cluster: str = ""
    violation: float | None = None
    disagreement: float = 0.0
    marked: bool = False

    @cached_property
    def key(self) -> str:
        """The answer under the rule, whoever marks it."""
        return digest([self.item, response_hash(self.response), self.rule, self.rule_hash])


@dataclass(frozen=True)
class Drawn:
    """A candidate that a queue chose; ``inclusion_probability`` is known for the uniform queue only."""

    draw: str
    place: int
    item: str
    response: str
    rule: str
    rule_hash: str
    language: str
    cluster: str
    queue: str
    inclusion_probability: float | None

    @cached_property
    def answer(self) -> str:
        """The ``Candidate.key`` of what was drawn."""
        return digest([self.item, response_hash(self.response), self.rule, self.rule_hash])

    @property
    def key(self) -> str:
        return digest([self.draw, self.answer])

    def row(self) -> dict[str, Any]:
        return {"key": self.key, "response_hash": response_hash(self.response), **asdict(self)}


def to_mark(drawn: Drawn, messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row for people who work without a tool: they add ``annotator`` and ``verdict``, and it is a label."""
    return {name: value for name, value in drawn.row().items() if name != "key"} | {"messages": [dict(m) for m in messages]}


def candidates(labels: Iterable[Label], clusters: Mapping[str, str] | None = None) -> list[Candidate]:
    """Every marked answer as a candidate, with what checkers and judges predict and how far the marks contradict each other.

    ``labels``: those that hold (superseded ones left out), of people and of checkers; ``clusters``: {item: source of its prompt}.
    """
    groups: dict[tuple[str, str, str, str], list[Label]] = defaultdict(list)
    for label in labels:
        groups[label.item, label.response, label.rule, label.rule_hash].append(label)
    result = []
    for (item, response, rule, rule_hash), marks in groups.items():
        said = [m for m in marks if m.verdict in (Status.COMPLIANT, Status.VIOLATION)]
        predicted = [_violation(m) for m in said if m.source != "human"]
        broken = sum(m.verdict == Status.VIOLATION for m in said)
        result.append(
            Candidate(
                item,
                response,
                rule,
                rule_hash,
                marks[0].language,
                (clusters or {}).get(item, item),
                math.fsum(predicted) / len(predicted) if predicted else None,
                1 - abs(2 * broken / len(said) - 1) if said else 0.0,
                any(m.source == "human" for m in marks),
            )
        )
    return result


def _violation(label: Label) -> float:
    """A checker's mark as a probability: its score where it has one in [0, 1], else its verdict."""
    if label.score is not None and 0 <= label.score <= 1:
        return 1 - label.score
    return float(label.verdict == Status.VIOLATION)


def draw(
    found: Sequence[Candidate],
    count: int,
    *,
    seed: int = 0,
    audited: Collection[str] = (),
    shares: Mapping[str, float] = SHARES,
) -> list[Drawn]:
    """Choose ``count`` candidates, or all there are; in the order of showing, in which the queues are mixed.

    Args:
        audited: keys of candidates that the uniform queue has drawn before. They are out of its frame; its next draw is again an equal
            chance for all that is left, so that draws of one population add up.
        shares: queue → share of ``count``; what a queue cannot fill goes to ``diverse``, and what that cannot fill is left out.
    """
    if unknown := set(shares) - set(SHARES):
        raise NormaError(f"unknown queue '{min(unknown)}'", mend=f"Known: {', '.join(SHARES)}")
    by_key = {c.key: c for c in found}
    numbers = {key: int(digest(["draw", seed, key])[:13], 16) for key in by_key}  # 52 bits: below, ties are as good as impossible
    order = sorted(by_key, key=lambda key: (numbers[key], key))
    frame = [key for key in order if key not in audited]
    sizes = _sizes(count, shares)
    uniform = frame[: sizes["uniform"]]
    taken = set(uniform)
    left = [key for key in frame if key not in taken and not by_key[key].marked]
    chosen: dict[str, list[str]] = {"uniform": uniform}
    for queue, value in (("uncertain", _doubt(by_key)), ("rare", _rarity(by_key))):
        best = sorted((k for k in left if value.get(k, 0) > 0), key=lambda k: (-value[k], numbers[k], k))[: sizes[queue]]
        chosen[queue] = best
        taken.update(best)
        left = [key for key in left if key not in taken]
    short = sum(sizes[q] - len(chosen[q]) for q in chosen) if shares.get("diverse") else 0
    pool = left[:_RANKED]
    seen = [by_key[k].response for k in order if k in taken or by_key[k].marked][:_RANKED]
    chosen["diverse"] = [pool[i] for i in farthest_first([by_key[k].response for k in pool], sizes["diverse"] + short, seen)]
    name = digest(["draw", seed, count, dict(shares), sorted(by_key), sorted(audited)])
    reasons = {key: queue for queue, keys in chosen.items() for key in keys}
    shown = sorted(reasons, key=lambda key: digest(["show", seed, key]))
    return [
        Drawn(
            name,
            place,
            (c := by_key[key]).item,
            c.response,
            c.rule,
            c.rule_hash,
            c.language,
            c.cluster,
            reasons[key],
            len(uniform) / len(frame) if reasons[key] == "uniform" else None,
        )
        for place, key in enumerate(shown)
    ]


def _sizes(count: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in the ratio of the shares that add up to ``count``: largest remainders, the earlier queue first."""
    if count < 0 or not shares or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise NormaError("the shares of the queues are numbers that add up to 1, and the count is not negative")
    exact = {queue: round(count * shares.get(queue, 0.0), 9) for queue in SHARES}
    sizes = {queue: int(value) for queue, value in exact.items()}
    for queue in sorted(SHARES, key=lambda q: sizes[q] - exact[q])[: count - sum(sizes.values())]:
        sizes[queue] += 1
    return sizes


def _doubt(by_key: Mapping[str, Candidate]) -> dict[str, float]:
    """How near the prediction is to even, or how far the marks contradict each other: the larger, from 0 to 1."""
    return {
        key: max(c.disagreement, 0.0 if c.violation is None else 1 - abs(2 * c.violation - 1))
        for key, c in by_key.items()
        if c.violation is not None or c.disagreement
    }


def _rarity(by_key: Mapping[str, Candidate]) -> dict[str, float]:
    """Predicted violations (more likely than not) by how unusual they are for their rule: probability over the rule's mean."""
    predicted: dict[str, list[float]] = defaultdict(list)
    for c in by_key.values():
        if c.violation is not None:
            predicted[c.rule].append(c.violation)
    mean = {rule: math.fsum(sorted(values)) / len(values) for rule, values in predicted.items()}
    return {key: c.violation / mean[c.rule] for key, c in by_key.items() if c.violation is not None and c.violation >= 0.5}
