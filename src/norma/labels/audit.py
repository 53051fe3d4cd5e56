"""Rates from the audit stream, whose answers were drawn with known chances.

    uniform draws + the marks that people gave them since ─audited─→ values, probabilities ─horvitz_thompson─→ rate ± interval

Marks from the other queues were chosen for being doubtful or bad: a rate over all marks would say so, and not what the model does.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t
from statsmodels.stats.proportion import proportion_confint

from norma.labels.consensus import consensus
from norma.labels.queues import Drawn
from norma.labels.rows import Label
from norma.spec.types import Status


@dataclass(frozen=True)
class AuditRate:
    """A rate of the population that was sampled.

    Attributes:
        rate: compliant answers over those the rule applies to; None when no drawn answer has such a mark.
        low, high: interval of ``rate``, if answers without a mark are like those with one.
        worst, best: the rate if all drawn answers without a usable mark were violations, or compliant.
        total: estimated number of answers in the population that the rule applies to.
        marked, drawn: how many drawn answers have a usable mark (not applicable is one), and how many were drawn.
        effective: independent observations that the interval rests on.
    """

    rate: float | None
    low: float | None
    high: float | None
    worst: float
    best: float
    total: float
    marked: int
    drawn: int
    effective: float


def horvitz_thompson(
    values: Sequence[float | None],
    probabilities: Sequence[float],
    clusters: Sequence[str],
    *,
    unmarked: Sequence[bool] = (),
    confidence: float = 0.95,
) -> AuditRate:
    """Each answer stands for 1 / probability answers of the population.

    Horvitz and Thompson (1952) for the totals, their ratio for the rate (Hájek 1971); the variance of the ratio is linearised over clusters
    (Särndal, Swensson and Wretman 1992, section 5.6), and the interval is Wilson's on the effective sample size that it implies (Korn
    and Graubard 1998). No correction for a finite population is made: the interval is a little wide for large samples.

    Args:
        values: 1 compliant, 0 violation, None where the rule does not apply or the answer has no usable mark.
        unmarked: True where the None means that there is no usable mark; default: never.
    """
    missing = np.array(unmarked, dtype=bool) if len(unmarked) else np.zeros(len(values), dtype=bool)
    weight = 1 / np.asarray(probabilities, dtype=np.float64)
    there = np.array([v is not None for v in values], dtype=bool)
    y = np.array([0.0 if v is None else v for v in values])
    total, kept, lost = float(weight[there].sum()), float(weight[there] @ y[there]), float(weight[missing].sum())
    marked, drawn = int((~missing).sum()), len(values)
    worst = kept / (total + lost) if total + lost else 0.0
    best = (kept + lost) / (total + lost) if total + lost else 1.0
    if not there.any():
        return AuditRate(None, None, None, worst, best, total, marked, drawn, 0.0)
    rate = kept / total
    sums: dict[str, float] = defaultdict(float)
    sizes: dict[str, float] = defaultdict(float)
    for w, value, cluster, use in zip(weight, y, clusters, there, strict=True):
        if use:
            sums[cluster] += w * (value - rate)
            sizes[cluster] += w
    groups = len(sums)
    variance = math.fsum(s**2 for s in sums.values()) / total**2 * groups / max(1, groups - 1)
    even = total**2 / math.fsum(s**2 for s in sizes.values())  # Kish's effective number of clusters
    if groups < 2:
        effective = 1.0
    elif variance <= 1e-15 or rate in (0.0, 1.0):
        effective = even
    else:
        n, tail = int(there.sum()), 1 - (1 - confidence) / 2
        effective = rate * (1 - rate) / variance * float(t.ppf(tail, n - 1) / t.ppf(tail, groups - 1)) ** 2
        effective = max(1.0, min(effective, float(n)))
    low, high = proportion_confint(rate * effective, effective, alpha=1 - confidence, method="wilson")
    return AuditRate(rate, max(0.0, float(low)), min(1.0, float(high)), worst, best, total, marked, drawn, effective)


def audited(draws: Iterable[Drawn], labels: Iterable[Label], confidence: float = 0.95) -> AuditRate:
    """The rate of one rule from its uniform draws and the people's marks that hold, from whichever queue the marks came."""
    marks: dict[tuple[str, str, str, str], list[Label]] = defaultdict(list)
    for label in labels:
        if label.source == "human":
            marks[label.item, label.response, label.rule, label.rule_hash].append(label)
    chosen = [d for d in draws if d.queue == "uniform"]
    said = [consensus(marks.get((d.item, d.response, d.rule, d.rule_hash), [])) for d in chosen]
    values = [{Status.COMPLIANT: 1.0, Status.VIOLATION: 0.0}.get(s) for s in said]
    return horvitz_thompson(
        values,
        [d.inclusion_probability or 1.0 for d in chosen],
        [d.cluster or d.item for d in chosen],
        unmarked=[s in (Status.UNSURE, Status.ERROR) for s in said],
        confidence=confidence,
    )
