"""How far annotators agree beyond chance: pure functions of counts.

    ratings (units x raters) ─count_ratings─→ counts (units x categories) ─→ alpha | gwet | fleiss | raw_agreement
    two raters ─────────────────────────────→ table (categories x categories) ─→ cohen

A unit is one answer under one rule. Missing ratings are simply not counted; a unit that fewer than two people rated says nothing of
agreement. Each function takes ``weights``, how often each unit counts (1 by default): the bootstrap resamples units by handing in whole
numbers, and equal units may be given once. A coefficient that is not defined (nobody ever used a second category) is NaN.

Letters: U units, C categories, R raters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from statsmodels.stats.inter_rater import cohens_kappa

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], float]
Metric = Literal["nominal", "ordinal", "interval"]
Scale = Literal["identity", "linear", "quadratic", "ordinal"]


def count_ratings(ratings: ArrayLike, values: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """(U, C) how often each unit was given each value, and the (C,) values.

    Args:
        ratings: (U, R) numbers, NaN where a rater did not rate a unit.
        values: the values that could be given, in order; default: those that were.
    """
    given = np.asarray(ratings, dtype=np.float64)
    known = np.unique(given[~np.isnan(given)]) if values is None else np.asarray(values, dtype=np.float64)
    counts = np.stack([(given == v).sum(axis=1) for v in known], axis=1) if len(known) else np.zeros((len(given), 0))
    if values is not None and counts.sum() != (~np.isnan(given)).sum():
        raise ValueError("a rating is not among the values")
    return counts.astype(np.float64), known


def _weights(counts: Floats, weights: Floats | None) -> Floats:
    return np.ones(len(counts)) if weights is None else weights


def raw_agreement(counts: Floats, weights: Floats | None = None) -> float:
    """The share of agreeing pairs of ratings, averaged over the units with two ratings or more."""
    return _observed(counts, np.eye(counts.shape[1]))(_weights(counts, weights))


def alpha(counts: Floats, values: Floats | None = None, metric: Metric = "nominal", weights: Floats | None = None) -> float:
    """Krippendorff's alpha = 1 - D_o / D_e for any number of raters and missing ratings.

    Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability". With distances that are squared differences of numbers x_c, the
    sums over pairs are moments: a unit of m ratings adds 2 (m sum x² - (sum x)²) / (m - 1) to D_o. The ordinal distance is of that kind
    too, with x_c the mid-rank of category c among all ratings (the paper: the sum of n_g from c to k, less half of both ends).

    Args:
        counts: (U, C) from ``count_ratings``, the categories in their order.
        values: (C,) the categories' numbers, for ``interval``.
    """
    return alpha_of(counts, values, metric)(_weights(counts, weights))


def alpha_of(counts: Floats, values: Floats | None = None, metric: Metric = "nominal") -> Statistic:
    """``alpha`` as a function of the (U,) weights, with all that does not depend on them done once: for the bootstrap."""
    if metric == "interval" and values is None:
        raise ValueError("the interval metric needs the categories' values")
    paired = counts.sum(axis=1) >= 2
    counts = counts[paired]
    ratings = counts.sum(axis=1)

    def spread(x: Floats) -> Floats:
        return np.asarray(2 * (ratings * (counts @ x**2) - (counts @ x) ** 2) / (ratings - 1))

    used = counts.sum(axis=0)
    fixed = None  # distances do not change when all numbers move; squares of large ones would lose digits
    if metric == "interval" and used.sum():
        fixed = np.asarray(values, dtype=np.float64) - float(used @ np.asarray(values, dtype=np.float64)) / float(used.sum())
    within = (ratings**2 - (counts**2).sum(axis=1)) / (ratings - 1) if metric == "nominal" else None if fixed is None else spread(fixed)

    def statistic(weights: Floats) -> float:
        weights = weights[paired]
        totals = weights @ counts  # how often each category was used
        if (totals > 0).sum() < 2:
            return float("nan")
        n = float(totals.sum())
        if metric == "nominal":
            expected = (n**2 - float((totals**2).sum())) / (n - 1)
        else:
            x = np.cumsum(totals) - totals / 2 if fixed is None else fixed
            expected = 2 * (n * float(totals @ x**2) - float(totals @ x) ** 2) / (n - 1)
        return 1 - float(weights @ (spread(x) if within is None else within)) / expected

    return statistic


def category_weights(values: ArrayLike, scale: Scale = "identity") -> Floats:
    """(C, C) how much two categories agree, 1 on the diagonal: Gwet (2014), Handbook of Inter-Rater Reliability, chapter 3."""
    x = np.asarray(values, dtype=np.float64)
    if scale == "identity" or len(x) < 2:
        return np.eye(len(x))
    if scale == "ordinal":  # the number of pairs of categories from one to the other, both included
        apart = np.abs(np.subtract.outer(np.arange(len(x)), np.arange(len(x)))) + 1
        pairs = apart * (apart - 1) / 2
        return np.asarray(1 - pairs / pairs.max())
    distance = np.abs(np.subtract.outer(x, x)) / (x.max() - x.min())
    return np.asarray(1 - distance ** (2 if scale == "quadratic" else 1))


def _observed(counts: Floats, agree: Floats) -> Statistic:
    """The mean over units of the weighted share of agreeing pairs (Gwet 2014, equation 3.11; Fleiss 1971 for identity weights)."""
    ratings = counts.sum(axis=1)
    paired = ratings >= 2
    some, size = counts[paired], ratings[paired]
    shares = (some * (some @ agree - 1)).sum(axis=1) / (size * (size - 1))

    def statistic(weights: Floats) -> float:
        total = float(weights[paired].sum())
        return float(weights[paired] @ shares) / total if total else float("nan")

    return statistic


def _chance_corrected(counts: Floats, agree: Floats, chance_of: Callable[[Floats], float]) -> Statistic:
    """(p_o - p_e) / (1 - p_e), where p_e follows from the (C,) mean share of each category over the rated units."""
    observed = _observed(counts, agree)
    ratings = counts.sum(axis=1)
    rated = ratings >= 1
    shares = counts[rated] / ratings[rated, None]

    def statistic(weights: Floats) -> float:
        found = observed(weights)
        if np.isnan(found):
            return found
        chance = chance_of(weights[rated] @ shares / weights[rated].sum())
        return (found - chance) / (1 - chance) if chance < 1 - 1e-12 else float("nan")

    return statistic


def gwet(counts: Floats, agree: Floats | None = None, weights: Floats | None = None) -> float:
    """Gwet's AC1 (identity weights) or AC2: chance is pi (1 - pi), so that it does not collapse when nearly all marks are alike.

    Gwet (2008), British Journal of Mathematical and Statistical Psychology 61, 29-48; with weights, Gwet (2014), chapter 3.
    ``counts`` must have a column for every category that could be used, also for those that nobody used.
    """
    return gwet_of(counts, agree)(_weights(counts, weights))


def gwet_of(counts: Floats, agree: Floats | None = None) -> Statistic:
    """``gwet`` as a function of the (U,) weights: for the bootstrap."""
    agree, categories = np.eye(counts.shape[1]) if agree is None else agree, counts.shape[1]
    if categories < 2:
        return lambda weights: float("nan")
    scale = float(agree.sum()) / (categories * (categories - 1))
    return _chance_corrected(counts, agree, lambda prevalence: scale * float((prevalence * (1 - prevalence)).sum()))


def fleiss(counts: Floats, agree: Floats | None = None, weights: Floats | None = None) -> float:
    """Fleiss' kappa (1971), for unequal numbers of ratings too (Gwet 2014, equation 2.20): chance is the sum of pi²."""
    agree = np.eye(counts.shape[1]) if agree is None else agree
    return _chance_corrected(counts, agree, lambda prevalence: float(prevalence @ agree @ prevalence))(_weights(counts, weights))


def cohen(table: Floats, scale: Literal["identity", "linear", "quadratic"] = "identity") -> float:
    """Cohen's kappa of two raters (1960), or weighted (1968). ``table``: (C, C), how often the one said the row, the other the column."""
    total = float(table.sum())
    if total == 0:
        return float("nan")
    if abs(float(table.sum(axis=1) @ table.sum(axis=0)) - total**2) < 1e-9 * total**2:
        return float("nan")  # both always said the same one thing
    return float(cohens_kappa(table, wt=None if scale == "identity" else scale, return_results=False))


def pair_table(first: NDArray[np.int64], second: NDArray[np.int64], categories: int, weights: Floats | None = None) -> Floats:
    """(C, C) table of two raters' category numbers for the same units; a negative number is a missing rating."""
    both = (first >= 0) & (second >= 0)
    cells = first[both] * categories + second[both]
    given = None if weights is None else weights[both]
    return np.bincount(cells, given, minlength=categories**2).astype(np.float64).reshape(categories, categories)
