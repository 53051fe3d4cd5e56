"""Intervals by resampling items: whole items are drawn again with all their marks, since marks of one item hang together.

Statistics here are functions of how often each unit counts. Units that are alike are given once with their number, and a resample is one
multinomial draw over the kinds: the same distribution as drawing unit by unit, at the cost of the kinds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from norma.labels.agreement import Statistic

RESAMPLES = 2000
_DEFINED = 0.5  # at least this share of resamples must give a number


@dataclass(frozen=True)
class Interval:
    """A statistic with its percentile interval; NaN where it is not defined. ``units``: how many items it rests on."""

    value: float
    low: float
    high: float
    units: int


def kinds(rows: NDArray[np.generic]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(K,) the place of a row of each kind, and (K,) how many rows are of that kind. ``rows``: (U, ...) one row a unit."""
    _, places, numbers = np.unique(rows.reshape(len(rows), -1), axis=0, return_index=True, return_counts=True)
    return places.astype(np.int64), numbers.astype(np.int64)


def interval(
    statistic: Statistic,
    numbers: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap over units (Efron and Tibshirani 1993, chapter 13). ``statistic`` takes (K,) counts of each kind of unit."""
    units = int(numbers.sum())
    value = statistic(numbers.astype(np.float64)) if units else float("nan")
    if units == 0 or resamples == 0:
        return Interval(value, float("nan"), float("nan"), units)
    random = np.random.Generator(np.random.Philox(seed))
    drawn = np.array([statistic(random.multinomial(units, numbers / units).astype(np.float64)) for _ in range(resamples)])
    defined = drawn[~np.isnan(drawn)]
    if np.isnan(value) or len(defined) < _DEFINED * resamples:
        return Interval(value, float("nan"), float("nan"), units)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, min(float(low), value), max(float(high), value), units)
