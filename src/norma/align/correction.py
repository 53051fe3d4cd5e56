"""Supervised correction (有监督纠正): outputs are marked, the marks supervise.

    questions ─→ sampled answers ─→ marks per rule (label store) ─→ corrected answer, kept only if nothing gets worse
              ─→ pairs: corrected over original ─→ DPO + likelihood of the corrected answer, or another method

Here the marks come from the program checkers, as an annotator named ``checker:...``; people's marks go through the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from norma.align.marks import mark, rewards, sample
from norma.check.repair import repair
from norma.generate import Sampling
from norma.labels import Label, marks
from norma.lm import LanguageModel
from norma.spec import Item, Spec, Status

KEPT = (Status.COMPLIANT, Status.NOT_APPLICABLE)  # what may be said of an answer that keeps every rule that applies


@dataclass(frozen=True)
class Pair:
    """Two answers to one item, the first better."""

    item: Item
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Collected:
    """What sampling and marking gave."""

    pairs: list[Pair]
    labels: list[Label]
    answers: int
    compliant: int  # answers that kept every rule that applies
    uncorrected: int
    rewards: dict[tuple[str, str], float] = field(default_factory=dict)  # R(x, y) by (item, answer), where it can be said
    unfinished: frozenset[tuple[str, str]] = frozenset()  # answers that were cut off: they are undesirable, whatever they keep


def collect(
    model: LanguageModel, spec: Spec, items: Sequence[Item], sampling: Sampling, *, each: int, max_edit_ratio: float = 0.7
) -> Collected:
    """Answer, mark and correct: an answer that breaks a rule is paired with its correction, or with a better answer."""
    answers = sample(model, items, [i.messages for i in items], sampling, each=each)
    pairs: list[Pair] = []
    labels: list[Label] = []
    valued: dict[tuple[str, str], float] = {}
    cut: set[tuple[str, str]] = set()
    compliant = uncorrected = 0
    for item, completions in zip(items, answers, strict=True):
        marked = [mark(spec, item, c) for c in completions]
        valued |= {(item.id, m.text): r.value for m, r in zip(marked, rewards(spec, marked), strict=True) if r.value is not None}
        cut |= {(item.id, m.text) for m in marked if not m.finished}
        good = [m.text for m in marked if m.finished and all(v.status in KEPT for v in m.verdicts)]
        compliant += len(good)
        for answer in marked:
            made = marks(answer.verdicts, answer.text, item.language)
            if answer.text in good:
                labels += made
                continue
            corrected = repair(spec, item, answer.text, max_edit_ratio=max_edit_ratio) if answer.finished else None
            labels += [replace(m, corrected=corrected) if m.verdict == Status.VIOLATION else m for m in made]
            chosen = corrected or (good[0] if good else None)
            if chosen is None:
                uncorrected += 1
            else:
                pairs.append(Pair(item, chosen, answer.text))
    return Collected(pairs, labels, len(items) * each, compliant, uncorrected, valued, frozenset(cut))
