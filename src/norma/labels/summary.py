"""The agreement table: for each rule and language, how far people agree on whether the rule applies, and on the verdict where it does.

    labels ─→ groups (rule, meaning, language) ─→ two questions each ─→ Krippendorff's alpha, Gwet's AC1, Cohen's kappa, intervals, words
    {who: verdict} and how many answers were marked so ─┘   (what a database can count: no label need be read)

``unsure`` and ``error`` are missing data. ``not_applicable`` is one answer to "does it apply"; to "given that it applies, is it kept" it is
missing. Chance-corrected numbers collapse where nearly all marks are alike (99.4% raw agreement can give kappa -0.003): the words say so.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
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
Group = tuple[str, str, str]  # rule, digest of its meaning, language
FEW = 30  # items with two marks below which nothing is concluded
PRECISE = 0.1  # half-width of an interval that one can conclude from
RELIABLE, TENTATIVE = 0.8, 0.667  # Krippendorff (2004), Human Communication Research 30, section 6


@dataclass(frozen=True)
class Ratings:
    """Marks as a matrix: ``codes`` (U, R annotators) numbers of ``values``, -1 where missing; row u stands for ``times[u]`` items."""

    codes: NDArray[np.int64]
    values: Floats
    annotators: tuple[str, ...]
    times: NDArray[np.int64]

    @property
    def counts(self) -> Floats:
        """(U, C) how often an item of each row was given each value."""
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
    return Ratings(codes, levels, tuple(people), np.ones(len(codes), dtype=np.int64)), missing


def _value(label: Label, question: Question) -> float | None:
    return label.score if question == "score" else _answer(label.verdict, question)


def _answer(verdict: str, question: Question) -> float | None:
    if verdict in (Status.UNSURE, Status.ERROR):
        return None
    if question == "applies":
        return float(verdict != Status.NOT_APPLICABLE)
    return None if verdict == Status.NOT_APPLICABLE else float(verdict == Status.COMPLIANT)


def _counted(said: list[tuple[Mapping[str, str], int]], question: Question) -> tuple[Ratings, int]:
    """``ratings`` of answers that are given once for all that were marked alike."""
    answers = [({who: v for who, verdict in marks.items() if (v := _answer(verdict, question)) is not None}, n) for marks, n in said]
    people = {who: j for j, who in enumerate(sorted({who for row, _ in answers for who in row}))}
    rows = [(row, n) for row, n in answers if row]
    codes = np.full((len(rows), len(people)), -1, dtype=np.int64)
    for i, (row, _) in enumerate(rows):
        for who, value in row.items():
            codes[i, people[who]] = int(value)
    missing = sum(n * sum(v in (Status.UNSURE, Status.ERROR) for v in marks.values()) for marks, n in said)
    return Ratings(codes, np.array([0.0, 1.0]), tuple(people), np.array([n for _, n in rows], dtype=np.int64)), missing


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
    groups: dict[Group, list[Label]] = defaultdict(list)
    for label in labels:
        groups[label.rule, label.rule_hash, label.language].append(label)
    bounds: dict[str, Any] = {"metric": metric, "resamples": resamples, "seed": seed, "confidence": confidence}
    rows = []
    for group, marks in sorted(groups.items()):
        doubt = any(m.verdict == Status.NOT_APPLICABLE for m in marks)
        rows += [_row(group, q, *ratings(marks, q), **bounds) for q in questions if doubt or q != "applies"]
    return rows


def table_of_counts(
    counted: Iterable[tuple[Group, Mapping[str, str], int]], *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = 0.95
) -> list[Row]:
    """``table`` of marks that a database has counted: group, {annotator: verdict that stands}, and how many answers were marked so."""
    groups: dict[Group, list[tuple[Mapping[str, str], int]]] = defaultdict(list)
    for group, said, number in counted:
        groups[group].append((said, number))
    rows = []
    for group, found in sorted(groups.items()):
        doubt = any(Status.NOT_APPLICABLE in said.values() for said, _ in found)
        questions: list[Question] = ["applies", "kept"] if doubt else ["kept"]
        for question in questions:
            rows.append(
                _row(group, question, *_counted(found, question), metric="nominal", resamples=resamples, seed=seed, confidence=confidence)
            )
    return rows


def _row(
    group: Group, question: Question, found: Ratings, missing: int, *, metric: agreement.Metric, resamples: int, seed: int,
    confidence: float,
) -> Row:  # fmt: skip
    counts, times = found.counts, found.times
    several = counts.sum(axis=1) >= 2
    paired, often = counts[several], times[several]
    scale: agreement.Scale = {"nominal": "identity", "ordinal": "ordinal", "interval": "quadratic"}[metric]  # type: ignore[assignment]
    agree = agreement.category_weights(found.values, scale)
    places, numbers = kinds(paired, often)
    kind = paired[places]

    def resampled(statistic: agreement.Statistic, numbers: NDArray[np.int64] = numbers) -> Interval:
        return interval(statistic, numbers, seed=seed, resamples=resamples, confidence=confidence)

    alpha = resampled(agreement.alpha_of(kind, found.values, metric))
    ac1 = resampled(agreement.gwet_of(kind, agree))
    kappa = None
    if len(found.annotators) == 2 and question != "score":
        both = (found.codes >= 0).all(axis=1)
        where, numbers_of_pairs = kinds(found.codes[both], times[both])
        pairs = found.codes[both][where]
        kappa = resampled(agreement.kappa_of(pairs[:, 0], pairs[:, 1], len(found.values)), numbers_of_pairs)
    raw = agreement.raw_agreement(paired, often.astype(np.float64))
    marks = int(times @ (found.codes >= 0).sum(axis=1))
    words = in_words(alpha, ac1, raw, paired, often)
    return Row(*group, question, int(often.sum()), len(found.annotators), marks, missing, raw, alpha, ac1, kappa, metric, words)


def in_words(alpha: Interval, ac1: Interval, raw: float, counts: Floats, times: NDArray[np.int64] | None = None) -> str:
    """What may be concluded. Reliability is judged by the lower end of the interval, as Krippendorff asks, not by the number itself."""
    times = np.ones(len(counts), dtype=np.int64) if times is None else times
    items = int(times.sum())
    if items == 0:
        return "no item has two marks: have some marked twice"
    width = (alpha.high - alpha.low) / 2
    if items < FEW:
        return f"too few: {items} item{'s' * (items != 1)} with two marks, and {FEW} are the least"
    used = times @ counts / float(times @ counts.sum(axis=1))
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
