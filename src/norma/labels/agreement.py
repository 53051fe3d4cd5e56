"""How far annotators agree beyond chance: pure functions of counts.

    ratings (units x raters) ─count_ratings─→ counts (units x categories) ─→ alpha | gwet | fleiss | raw_agreement
    two raters ─────────────────────────────→ table (categories x categories) ─→ cohen

A unit is one answer under one rule. Missing ratings are simply not counted; a unit that fewer than two people rated says nothing of
agreement. Each function takes ``weights``, how often each unit counts (1 by default): the bootstrap resamples units by handing in whole
numbers, and equal units may be given once. A coefficient that is not defined (nobody ever used a second category) is NaN.

Letters: U units, C categories, R raters.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from statsmodels.stats.inter_rater import cohens_kappa

Floats = NDArray[np.float64]
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
    return _observed(counts, np.eye(counts.shape[1]), _weights(counts, weights))


def alpha(counts: Floats, values: Floats | None = None, metric: Metric = "nominal", weights: Floats | None = None) -> float:
    """Krippendorff's alpha = 1 - D_o / D_e for any number of raters and missing ratings.

    Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability". With distances that are squared differences of numbers x_c, the
    sums over pairs are moments: a unit of m ratings adds 2 (m sum x² - (sum x)²) / (m - 1) to D_o. The ordinal distance is of that kind
    too, with x_c the mid-rank of category c among all ratings (the paper: the sum of n_g from c to k, less half of both ends).

    Args:
        counts: (U, C) from ``count_ratings``, the categories in their order.
        values: (C,) the categories' numbers, for ``interval``.
    """
    weights = _weights(counts, weights)
    paired = counts.sum(axis=1) >= 2
    counts, weights = counts[paired], weights[paired]
    ratings = counts.sum(axis=1)
    totals = weights @ counts  # how often each category was used
    n = float(totals.sum())
    if (totals > 0).sum() < 2:
        return float("nan")
    if metric == "nominal":
        within = (ratings**2 - (counts**2).sum(axis=1)) / (ratings - 1)
        expected = (n**2 - float((totals**2).sum())) / (n - 1)
    else:
        if metric == "interval" and values is None:
            raise ValueError("the interval metric needs the categories' values")
        x = np.cumsum(totals) - totals / 2 if metric == "ordinal" else np.asarray(values, dtype=np.float64)
        x = x - totals @ x / n  # distances do not change; squares of large numbers would lose digits
        within = 2 * (ratings * (counts @ x**2) - (counts @ x) ** 2) / (ratings - 1)
        expected = 2 * float(totals @ x**2) * n / (n - 1)
    return 1 - float(weights @ within) / expected


def category_weights(values: ArrayLike, scale: Scale = "identity") -> Floats:
    """(C, C) how much two categories agree, 1 on the diagonal: Gwet (2014), Handbook of Inter-Rater Reliability, chapter 3."""
    x = np.asarray(values, dtype=np.float64)
    if scale == "identity" or len(x) < 2:
        return np.eye(len(x))
    if scale == "ordinal":  # the number of pairs of categories from one to the other, both included
        apart = np.abs(np.subtract.outer(np.arange(len(x)), np.arange(len(x)))) + 1
        pairs = apart * (apart - 1) / 2
        return 1 - pairs / pairs.max()
    distance = np.abs(np.subtract.outer(x, x)) / (x.max() - x.min())
    return 1 - distance ** (2 if scale == "quadratic" else 1)


def _observed(counts: Floats, agree: Floats, weights: Floats) -> float:
    """The mean over units of the weighted share of agreeing pairs (Gwet 2014, equation 3.11; Fleiss 1971 for identity weights)."""
    ratings = counts.sum(axis=1)
    paired = ratings >= 2
    counts, ratings, weights = counts[paired], ratings[paired], weights[paired]
    total = float(weights.sum())
    if total == 0:
        return float("nan")
    shares = (counts * (counts @ agree - 1)).sum(axis=1) / (ratings * (ratings - 1))
    return float(weights @ shares) / total


def _prevalence(counts: Floats, weights: Floats) -> Floats:
    """(C,) the mean over rated units of the share of each category."""
    ratings = counts.sum(axis=1)
    rated = ratings >= 1
    shares = weights[rated] @ (counts[rated] / ratings[rated, None])
    return np.asarray(shares / weights[rated].sum())


def gwet(counts: Floats, agree: Floats | None = None, weights: Floats | None = None) -> float:
    """Gwet's AC1 (identity weights) or AC2: chance is pi (1 - pi), so that it does not collapse when nearly all marks are alike.

    Gwet (2008), British Journal of Mathematical and Statistical Psychology 61, equations 4 and 22; with weights, Gwet (2014), chapter 3.
    ``counts`` must have a column for every category that could be used, also for those that nobody used.
    """
    weights, agree = _weights(counts, weights), np.eye(counts.shape[1]) if agree is None else agree
    categories = counts.shape[1]
    observed = _observed(counts, agree, weights)
    if categories < 2 or np.isnan(observed):
        return float("nan")
    prevalence = _prevalence(counts, weights)
    chance = float(agree.sum()) / (categories * (categories - 1)) * float((prevalence * (1 - prevalence)).sum())
    return (observed - chance) / (1 - chance)


def fleiss(counts: Floats, agree: Floats | None = None, weights: Floats | None = None) -> float:
    """Fleiss' kappa (1971), for unequal numbers of ratings too (Gwet 2014, equation 2.20): chance is the sum of pi²."""
    weights, agree = _weights(counts, weights), np.eye(counts.shape[1]) if agree is None else agree
    observed = _observed(counts, agree, weights)
    if np.isnan(observed):
        return float("nan")
    prevalence = _prevalence(counts, weights)
    chance = float(prevalence @ agree @ prevalence)
    return (observed - chance) / (1 - chance) if chance < 1 - 1e-12 else float("nan")


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
