"""The agreement table: for each rule and language, how far people agree on whether the rule applies, and on the verdict where it does.

    labels ─→ groups (rule, meaning, language) ─→ two questions each ─→ Krippendorff's alpha, Gwet's AC1, Cohen's kappa, intervals, words

``unsure`` and ``error`` are missing data. ``not_applicable`` is one answer to "does it apply"; to "given that it applies, is it kept" it is
missing. Chance-corrected numbers collapse where nearly all marks are alike (99.4% raw agreement can give kappa -0.003): the words say so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from norma.labels import agreement
from norma.labels.agreement import Floats
from norma.labels.bootstrap import RESAMPLES, Interval, interval, kinds
from norma.labels.dawid_skene import dawid_skene
from norma.labels.rows import Label
from norma.spec.types import Status

Question = Literal["applies", "kept", "score"]
FEW = 30  # items with two marks below which nothing is concluded
PRECISE = 0.1  # half-width of an interval that one can conclude from
RELIABLE, TENTATIVE = 0.8, 0.667  # Krippendorff (2004), Human Communication Research 30, section 6


@dataclass(frozen=True)
class Ratings:
    """Marks as a matrix: ``codes`` (U items, R annotators) numbers of ``values``, -1 where missing."""

    codes: NDArray[np.int64]
    values: Floats
    annotators: tuple[str, ...]

    @property
    def counts(self) -> Floats:
        """(U, C) how often each item was given each value."""
        return np.stack([(self.codes == c).sum(axis=1) for c in range(len(self.values))], axis=1).astype(np.float64)


@dataclass(frozen=True)
class Row:
    """One line of the table. ``items``: with two marks or more; ``kappa`` where there are exactly two annotators."""

    rule: str
    rule_hash: str
    language: str
    question: Question
    items: int
    annotators: int
    marks: int
    missing: int
    raw: float
    alpha: Interval
    ac1: Interval
    kappa: Interval | None
    metric: str
    words: str

    def json(self) -> dict[str, Any]:
        """The line as JSON, with null for what is not defined."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def ratings(labels: Iterable[Label], question: Question) -> tuple[Ratings, int]:
    """The matrix of one question, and how many marks are missing data. An annotator's last revision counts."""
    items: dict[tuple[str, str], int] = {}
    people: dict[str, int] = {}
    cells: dict[tuple[int, int], tuple[int, str, float]] = {}
    missing = 0
    for label in sorted(labels, key=lambda m: (m.annotator, m.revision, m.key)):
        value = _value(label, question)
        if value is None:
            missing += label.verdict in (Status.UNSURE, Status.ERROR) or question == "score"
            continue
        row = items.setdefault((label.item, label.response), len(items))
        cells[row, people.setdefault(label.annotator, len(people))] = (label.revision, label.key, value)
    if question == "score":
        levels = np.unique([value for _, _, value in cells.values()]) if cells else np.zeros(0)
    else:
        levels = np.array([0.0, 1.0])  # both answers could be given, also where one never was
    codes = np.full((len(items), len(people)), -1, dtype=np.int64)
    if cells:
        places = np.array(list(cells))
        codes[places[:, 0], places[:, 1]] = np.searchsorted(levels, [value for _, _, value in cells.values()])
    return Ratings(codes, levels, tuple(people)), missing


def _value(label: Label, question: Question) -> float | None:
    if question == "score":
        return label.score
    if label.verdict in (Status.UNSURE, Status.ERROR):
        return None
    if question == "applies":
        return float(label.verdict != Status.NOT_APPLICABLE)
    return None if label.verdict == Status.NOT_APPLICABLE else float(label.verdict == Status.COMPLIANT)


def table(
    labels: Iterable[Label],
    questions: Iterable[Question] = ("applies", "kept"),
    *,
    metric: agreement.Metric = "nominal",
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Row]:
    """The lines of the table, by rule, meaning, language and question. ``metric``: of alpha; AC gets quadratic weights with interval."""
    groups: dict[tuple[str, str, str], list[Label]] = defaultdict(list)
    for label in labels:
        groups[label.rule, label.rule_hash, label.language].append(label)
    rows = []
    for (rule, hash, language), marks in sorted(groups.items()):
        for question in questions:
            if question == "applies" and all(m.verdict != Status.NOT_APPLICABLE for m in marks):
                continue  # nobody was in doubt whether it applies
            rows.append(_row(rule, hash, language, question, marks, metric, resamples, seed, confidence))
    return rows


def _row(
    rule: str, hash: str, language: str, question: Question, marks: list[Label], metric: agreement.Metric, resamples: int, seed: int,
    confidence: float,
) -> Row:  # fmt: skip
    found, missing = ratings(marks, question)
    counts = found.counts
    paired = counts[counts.sum(axis=1) >= 2]
    scale: agreement.Scale = {"nominal": "identity", "ordinal": "ordinal", "interval": "quadratic"}[metric]  # type: ignore[assignment]
    agree = agreement.category_weights(found.values, scale)
    places, numbers = kinds(paired)
    kind = paired[places]

    def resampled(statistic: agreement.Statistic, times: NDArray[np.int64] = numbers) -> Interval:
        return interval(statistic, times, seed=seed, resamples=resamples, confidence=confidence)

    alpha = resampled(agreement.alpha_of(kind, found.values, metric))
    ac1 = resampled(agreement.gwet_of(kind, agree))
    kappa = None
    if len(found.annotators) == 2 and question != "score":
        both = found.codes[(found.codes >= 0).all(axis=1)]
        where, times = kinds(both)
        pairs = both[where]
        kappa = resampled(lambda w: agreement.cohen(agreement.pair_table(pairs[:, 0], pairs[:, 1], len(found.values), w)), times)
    raw = agreement.raw_agreement(paired)
    words = in_words(alpha, ac1, raw, paired)
    return Row(
        rule, hash, language, question, len(paired), len(found.annotators), int((found.codes >= 0).sum()), missing, raw, alpha, ac1, kappa,
        metric, words,
    )  # fmt: skip


def in_words(alpha: Interval, ac1: Interval, raw: float, counts: Floats) -> str:
    """What may be concluded. Reliability is judged by the lower end of the interval, as Krippendorff asks, not by the number itself."""
    items = len(counts)
    if items == 0:
        return "no item has two marks: have some marked twice"
    width = (alpha.high - alpha.low) / 2
    if items < FEW:
        return f"too few: {items} item{'s' * (items != 1)} with two marks, and {FEW} are the least"
    used = counts.sum(axis=0) / counts.sum()
    if math.isnan(alpha.value) or (used > 0).sum() < 2:
        return f"every mark is the same in {items:,} items: nothing to tell agreement from habit"
    if math.isnan(alpha.low):
        return f"too few: the rarer answer is in too few of {items:,} items for an interval"
    if used.max() >= 0.95 and ac1.low >= RELIABLE > alpha.low:
        return f"skewed ({used.max():.1%} of marks alike): alpha says little, AC1 holds; mark more of the rare kind"
    if alpha.low >= RELIABLE:
        return "reliable"
    if width > PRECISE:
        needed = math.ceil(items * (width / PRECISE) ** 2 / 10) * 10
        return f"too few: about {needed:,} items with two marks would give ±{PRECISE}"
    if alpha.low >= TENTATIVE:
        return "good enough for tentative conclusions"
    if alpha.high < TENTATIVE:
        return "not reliable: mend the guideline, or use several marks an item"
    return "undecided between tentative and not reliable"


@dataclass(frozen=True)
class Annotator:
    """How one person errs, estimated with Dawid and Skene's model. ``sees_kept``: probability of saying kept where the truth is kept."""

    title: str
    annotator: str
    marks: int
    sees_kept: float
    sees_broken: float

    def json(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in asdict(self).items()}


def annotators(labels: Iterable[Label], smoothing: float = 1.0) -> list[Annotator]:
    """Dawid and Skene's estimate for the verdicts of each rule, meaning and language; the worst annotators first."""
    groups: dict[tuple[str, str, str], list[Label]] = defaultdict(list)
    for label in labels:
        groups[label.rule, label.rule_hash, label.language].append(label)
    result = []
    for (rule, _, language), marks in sorted(groups.items()):
        codes = ratings(marks, "kept")[0]
        items, people = np.nonzero(codes.codes >= 0)
        if not len(items):
            continue
        found = dawid_skene(items, people, codes.codes[items, people], 2, smoothing=smoothing)
        numbers = np.bincount(people, minlength=len(codes.annotators))
        rows = [
            Annotator(f"{rule} {language}".strip(), name, int(numbers[j]), float(found.confusion[j, 1, 1]), float(found.confusion[j, 0, 0]))
            for j, name in enumerate(codes.annotators)
        ]
        result += sorted(rows, key=lambda a: (a.sees_kept + a.sees_broken, a.annotator))
    return result
