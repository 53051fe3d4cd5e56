"""Intervals by resampling items: whole items are drawn again with all their marks, since marks of one item hang together.

Statistics here are functions of how often each unit counts. Units that are alike are given once with their number, and a resample is one
multinomial draw over the kinds: the same distribution as drawing unit by unit, at the cost of the kinds. Many resamples are one matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from norma.labels.agreement import Statistic

RESAMPLES = 2000
_DEFINED = 0.5  # at least this share of resamples must give a number
_CELLS = 2**20  # of the matrix of counts that is drawn at a time


@dataclass(frozen=True)
class Interval:
    """A statistic with its percentile interval; NaN where it is not defined. ``units``: how many items it rests on."""

    value: float
    low: float
    high: float
    units: int


def kinds(rows: NDArray[np.generic], times: NDArray[np.int64] | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(K,) the place of a row of each kind, and (K,) how many units are of that kind.

    ``rows``: (U, ...) one row a unit; ``times``: (U,) how many units each row stands for, one by default.
    """
    if not len(rows):  # nobody's marks can be compared yet
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    _, places, which = np.unique(rows.reshape(len(rows), -1), axis=0, return_index=True, return_inverse=True)
    return places.astype(np.int64), np.bincount(which.reshape(-1), times, minlength=len(places)).astype(np.int64)


def interval(
    statistic: Statistic,
    numbers: NDArray[np.int64],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap over units (Efron and Tibshirani 1993, chapter 13). ``statistic`` takes (B, K) counts of each kind."""
    units = int(numbers.sum())
    value = float(statistic(numbers[None].astype(np.float64))[0]) if units else float("nan")
    if units == 0 or resamples == 0:
        return Interval(value, float("nan"), float("nan"), units)
    random = np.random.Generator(np.random.Philox(seed))
    at_once = max(1, _CELLS // len(numbers))
    sizes = [min(at_once, resamples - begin) for begin in range(0, resamples, at_once)]
    drawn = np.concatenate([statistic(random.multinomial(units, numbers / units, size=n).astype(np.float64)) for n in sizes])
    defined = drawn[~np.isnan(drawn)]
    if np.isnan(value) or len(defined) < _DEFINED * resamples:
        return Interval(value, float("nan"), float("nan"), units)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, min(float(low), value), max(float(high), value), units)
