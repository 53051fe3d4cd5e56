"""How good a reward model is, on judgements that it has not learnt from: pure functions of its scores.

    scores of pairs  ─→ accuracy ± interval, margin, calibration error, correlation with length      `pair_quality`
    scores of marks  ─→ accuracy ± interval, order of all pairs of answers ± interval, the same      `mark_quality`

An accuracy says little without what length alone would have got: where longer answers are the better ones, a model may have learnt to
count (Singhal et al., 2310.03716).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import spearmanr

from norma.evaluate.statistics import clustered_rate

BINS = 10
RESAMPLES = 1000
MOST_ORDERED = 2000  # answers of which all pairs are compared

Floats = NDArray[np.float64]


def pair_quality(chosen: ArrayLike, rejected: ArrayLike, lengths: ArrayLike, sources: Sequence[str]) -> dict[str, Any]:
    """Scores (P,) of the better and the worse answers, their lengths (P, 2), and what each pair comes from.

    A tie is half right. ``calibration_error`` is of sigmoid(r_w - r_l) as the probability that people prefer the first; ``length`` has
    the rank correlation of differences of scores with differences of lengths, and how often the longer answer is the better one.
    """
    difference = np.asarray(chosen, dtype=np.float64) - np.asarray(rejected, dtype=np.float64)
    longer = np.subtract(*np.asarray(lengths, dtype=np.float64).T)
    right = (difference > 0) + 0.5 * (difference == 0)
    return {
        "n": len(difference),
        "accuracy": _rate(right, sources),
        "margin": float(difference.mean()),
        "calibration_error": calibration_error(expit(np.abs(difference)), right),
        "length": {"correlation": _correlation(difference, longer), "accuracy": float(((longer > 0) + 0.5 * (longer == 0)).mean())},
    }


def mark_quality(
    scores: ArrayLike,
    desirable: ArrayLike,
    targets: ArrayLike,
    lengths: ArrayLike,
    sources: Sequence[str],
    *,
    shift: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores (A,) of answers, whether each is good, what people gave it, its length, and what it comes from.

    ``accuracy``: the score's sign says whether the answer is good. ``order``: of two answers that people gave unlike scores, how often
    the model puts the better one first (Harrell's c; with marks alone, the area under the curve). ``calibration_error`` is of
    sigmoid(r) as what people gave; with ``shift``, of r + shift, in the unit of their scores.
    """
    r, good = np.asarray(scores, dtype=np.float64), np.asarray(desirable, dtype=bool)
    y, tokens = np.asarray(targets, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    right = np.where(r == 0, 0.5, (r > 0) == good)
    said, low, high = (expit(r), 0.0, 1.0) if shift is None else (r + shift, float(y.min()), float(y.max()))
    return {
        "n": len(r),
        "desirable": float(good.mean()),
        "accuracy": _rate(right, sources),
        "order": _order(r, y, sources, seed),
        "margin": float((r * np.where(good, 1.0, -1.0)).mean()),
        "score_correlation": _correlation(r, y),
        "calibration_error": calibration_error(said, y, low, high),
        "length": {"correlation": _correlation(r, tokens), "order": _ordered(tokens, y)},
    }


def calibration_error(p: ArrayLike, outcome: ArrayLike, low: float = 0.0, high: float = 1.0, bins: int = BINS) -> float:
    """Expected calibration error: |mean of p - mean outcome| of bins of equal width from low to high, weighted by how many are in each.

    (Guo et al., 1706.04599, eq. 3.) What lies outside is counted in the bin at that end.
    """
    p, outcome = np.asarray(p, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    place = np.clip((p - low) / max(high - low, 1e-12) * bins, 0, bins - 1).astype(np.int64)
    gaps = np.bincount(place, weights=p - outcome, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def _rate(values: Floats, sources: Sequence[str]) -> dict[str, float | None]:
    found = clustered_rate(values.tolist(), sources)
    return {"rate": found.rate, "low": found.low, "high": found.high}


def _correlation(a: Floats, b: Floats) -> float | None:
    """Spearman's; None where one of the two does not vary."""
    return None if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)


def _order(r: Floats, y: Floats, sources: Sequence[str], seed: int) -> dict[str, float | None]:
    """The share of pairs in order, and its percentile interval over sources drawn with replacement."""
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(r))[:MOST_ORDERED])
    right, unlike = _compared(r[chosen], y[chosen])
    _, place = np.unique(np.asarray(sources)[chosen], return_inverse=True)
    groups = int(place.max()) + 1
    if not unlike.any():
        return {"rate": None, "low": None, "high": None}
    rates = []
    for _ in range(RESAMPLES):
        weight = np.bincount(random.integers(groups, size=groups), minlength=groups)[place].astype(np.float64)
        pairs = weight @ unlike @ weight
        if pairs:
            rates.append(weight @ right @ weight / pairs)
    low, high = np.quantile(rates, [0.025, 0.975])
    return {"rate": float(right.sum() / unlike.sum()), "low": float(low), "high": float(high)}


def _ordered(r: Floats, y: Floats) -> float | None:
    right, unlike = _compared(r[:MOST_ORDERED], y[:MOST_ORDERED])
    return float(right.sum() / unlike.sum()) if unlike.any() else None


def _compared(r: Floats, y: Floats) -> tuple[Floats, Floats]:
    """(A, A): whether i is better than j and has the larger score (a tie is half right), and whether i is better than j."""
    better = (y[:, None] > y).astype(np.float64)
    return better * ((r[:, None] > r) + 0.5 * (r[:, None] == r)), better
