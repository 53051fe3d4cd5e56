"""Intervals and paired tests of any score that reads a sum of statistics. Pure.

statistics (N, K), clusters ─→ value, low, high            means in [0, 1]: Wilson on the effective size; else cluster bootstrap
before and after, same rows ─→ difference, low, high, p    means: Tango and McNemar, or as norma.evaluate.statistics says;
                                                           else paired bootstrap and approximate randomisation over clusters
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from norma.evaluate.benchmarks.scores import Floats, Score
from norma.evaluate.statistics import EXACT_CLUSTERS, clustered_rate, paired_difference

RESAMPLES = 1000
PERMUTATIONS = 2000


@dataclass(frozen=True)
class Estimate:
    """A score with its 95% interval; ``n`` rows of ``clusters`` sources."""

    value: float
    low: float
    high: float
    n: int
    clusters: int


@dataclass(frozen=True)
class Change:
    """``after - before`` on the same rows; ``test`` names interval and test."""

    before: float
    after: float
    delta: float
    low: float
    high: float
    p: float
    n: int
    clusters: int
    test: str


def by_cluster(stats: Floats, clusters: Sequence[str]) -> Floats:
    """(G, K) the sums of each cluster, in order of first appearance."""
    index: dict[str, int] = {}
    places = np.fromiter((index.setdefault(c, len(index)) for c in clusters), dtype=np.int64, count=len(clusters))
    out = np.zeros((len(index), stats.shape[1]))
    np.add.at(out, places, stats)
    return out


def estimate(score: Score, stats: Floats, clusters: Sequence[str], *, seed: int = 0, confidence: float = 0.95) -> Estimate:
    """The score of all rows with its interval. Raises ValueError without rows."""
    if not len(stats):
        raise ValueError("a score needs at least one row")
    value, count = score.of(stats.sum(axis=0)), len(set(clusters))
    if score.mean:
        rate = clustered_rate([float(v) for v in stats[:, 0]], clusters, confidence)
        assert rate.low is not None and rate.high is not None
        return Estimate(value, rate.low, rate.high, len(stats), count)
    groups = by_cluster(stats, clusters)
    values = [score.of(total) for total in _resampled(groups, seed)]
    low, high = _percentiles(values, confidence)
    return Estimate(value, min(low, value), max(high, value), len(stats), count)


def change(score: Score, before: Floats, after: Floats, clusters: Sequence[str], *, seed: int = 0, confidence: float = 0.95) -> Change:
    """The paired difference of the same rows.

    Of a score that is no mean: bootstrap of the difference over clusters (Koehn 2004, W04-3250) and approximate randomisation, before
    and after exchanged within whole clusters (Noreen 1989; Riezler and Maxwell 2005, W05-0908); all exchanges where there are few.
    """
    values = score.of(before.sum(axis=0)), score.of(after.sum(axis=0))
    count = len(set(clusters))
    if score.mean:
        found = paired_difference(
            [float(v) for v in before[:, 0]], [float(v) for v in after[:, 0]], clusters, seed=seed, confidence=confidence
        )
        assert found.delta is not None and found.low is not None and found.high is not None and found.p is not None
        return Change(*values, found.delta, found.low, found.high, found.p, len(before), count, found.test)
    first, second = by_cluster(before, clusters), by_cluster(after, clusters)
    delta = values[1] - values[0]
    both = np.concatenate([first, second], axis=1)
    K = first.shape[1]
    low, high = _percentiles([score.of(t[K:]) - score.of(t[:K]) for t in _resampled(both, seed)], confidence)
    p = _randomised(score, first, second, delta, seed)
    return Change(*values, delta, min(low, delta), max(high, delta), p, len(before), count, "paired_bootstrap+randomisation")


def _resampled(groups: Floats, seed: int) -> list[Floats]:
    """Sums of ``RESAMPLES`` draws of whole clusters with replacement."""
    random = np.random.default_rng(seed)
    counts = random.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=RESAMPLES)
    return list(counts.astype(np.float64) @ groups)


def _percentiles(values: Sequence[float], confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(values), [tail, 1 - tail])
    return float(low), float(high)


def _randomised(score: Score, before: Floats, after: Floats, delta: float, seed: int) -> float:
    differs = np.abs(after - before).sum(axis=1) > 1e-12
    count = int(differs.sum())
    if not count:
        return 1.0
    total_before, total_after = before.sum(axis=0), after.sum(axis=0)
    gaps = (after - before)[differs]
    exact = count <= min(EXACT_CLUSTERS, 10)
    if exact:
        flips = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    else:
        flips = np.random.default_rng(seed).integers(0, 2, size=(PERMUTATIONS, count))
    moved = flips @ gaps
    observed = abs(delta) - 1e-9
    extreme = sum(abs(score.of(total_after - m) - score.of(total_before + m)) >= observed for m in moved)
    return float(extreme / len(flips)) if exact else float((1 + extreme) / (1 + len(flips)))
