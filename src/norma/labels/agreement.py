"""How far annotators agree beyond chance: pure functions of counts.

    ratings (units x raters) ─count_ratings─→ counts (units x categories) ─→ alpha | gwet | fleiss | raw_agreement
    two raters ─────────────────────────────→ table (categories x categories) ─→ cohen

A unit is one answer under one rule. Missing ratings are simply not counted; a unit that fewer than two people rated says nothing of
agreement. Each function takes ``weights``, how often each unit counts (1 by default): equal units may be given once. The bootstrap
resamples units by handing in whole numbers, all resamples at once. A coefficient that is not defined (nobody ever used a second category)
is NaN.

Letters: U units, C categories, R raters, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # (B, U) how often each unit counts in each resample -> (B,)
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


def _once(statistic: Statistic, counts: Floats, weights: Floats | None) -> float:
    return float(statistic((np.ones(len(counts)) if weights is None else weights)[None])[0])


def raw_agreement(counts: Floats, weights: Floats | None = None) -> float:
    """The share of agreeing pairs of ratings, averaged over the units with two ratings or more."""
    return _once(_observed(counts, np.eye(counts.shape[1])), counts, weights)


def alpha(counts: Floats, values: Floats | None = None, metric: Metric = "nominal", weights: Floats | None = None) -> float:
    """Krippendorff's alpha = 1 - D_o / D_e for any number of raters and missing ratings.

    Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability". With distances that are squared differences of numbers x_c, the
    sums over pairs are moments: a unit of m ratings adds 2 (m sum x² - (sum x)²) / (m - 1) to D_o. The ordinal distance is of that kind
    too, with x_c the mid-rank of category c among all ratings (the paper: the sum of n_g from c to k, less half of both ends).

    Args:
        counts: (U, C) from ``count_ratings``, the categories in their order.
        values: (C,) the categories' numbers, for ``interval``.
    """
    return _once(alpha_of(counts, values, metric), counts, weights)


def alpha_of(counts: Floats, values: Floats | None = None, metric: Metric = "nominal") -> Statistic:
    """``alpha`` as a function of (B, U) weights, with all that does not depend on them done once: for the bootstrap."""
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

    def statistic(weights: Floats) -> Floats:
        weights = weights[:, paired]
        totals = weights @ counts  # (B, C) how often each category was used
        n = totals.sum(axis=1)
        if metric == "nominal":
            expected = (n**2 - (totals**2).sum(axis=1)) / (n - 1)
        else:
            x = np.cumsum(totals, axis=1) - totals / 2 if fixed is None else np.broadcast_to(fixed, totals.shape)
            expected = 2 * (n * (totals * x**2).sum(axis=1) - (totals * x).sum(axis=1) ** 2) / (n - 1)
        if within is None:
            found = np.array([weight @ spread(ranks) for weight, ranks in zip(weights, x, strict=True)])
        else:
            found = weights @ within
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where((totals > 0).sum(axis=1) >= 2, 1 - found / expected, np.nan)

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

    def statistic(weights: Floats) -> Floats:
        total = weights[:, paired].sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.asarray(weights[:, paired] @ shares / total)

    return statistic


def _chance_corrected(counts: Floats, agree: Floats, chance_of: Callable[[Floats], Floats]) -> Statistic:
    """(p_o - p_e) / (1 - p_e), where p_e follows from the (B, C) mean share of each category over the rated units."""
    observed = _observed(counts, agree)
    ratings = counts.sum(axis=1)
    rated = ratings >= 1
    shares = counts[rated] / ratings[rated, None]

    def statistic(weights: Floats) -> Floats:
        weight = weights[:, rated]
        with np.errstate(divide="ignore", invalid="ignore"):
            chance = chance_of(weight @ shares / weight.sum(axis=1, keepdims=True))
            return np.where(chance < 1 - 1e-12, (observed(weights) - chance) / (1 - chance), np.nan)

    return statistic


def gwet(counts: Floats, agree: Floats | None = None, weights: Floats | None = None) -> float:
    """Gwet's AC1 (identity weights) or AC2: chance is pi (1 - pi), so that it does not collapse when nearly all marks are alike.

    Gwet (2008), British Journal of Mathematical and Statistical Psychology 61, 29-48; with weights, Gwet (2014), chapter 3.
    ``counts`` must have a column for every category that could be used, also for those that nobody used.
    """
    return _once(gwet_of(counts, agree), counts, weights)


def gwet_of(counts: Floats, agree: Floats | None = None) -> Statistic:
    """``gwet`` as a function of (B, U) weights: for the bootstrap."""
    agree, categories = np.eye(counts.shape[1]) if agree is None else agree, counts.shape[1]
    if categories < 2:
        return lambda weights: np.full(len(weights), np.nan)
    scale = float(agree.sum()) / (categories * (categories - 1))
    return _chance_corrected(counts, agree, lambda shares: scale * (shares * (1 - shares)).sum(axis=1))


def fleiss(counts: Floats, agree: Floats | None = None, weights: Floats | None = None) -> float:
    """Fleiss' kappa (1971), for unequal numbers of ratings too (Gwet 2014, equation 2.20): chance is the sum of pi²."""
    agree = np.eye(counts.shape[1]) if agree is None else agree
    return _once(_chance_corrected(counts, agree, lambda shares: (shares @ agree * shares).sum(axis=1)), counts, weights)


def cohen(table: Floats, scale: Literal["identity", "linear", "quadratic"] = "identity") -> float:
    """Cohen's kappa of two raters (1960), or weighted (1968). ``table``: (C, C), how often the one said the row, the other the column."""
    return float(_kappas(table[None], scale)[0])


def kappa_of(
    first: NDArray[np.int64], second: NDArray[np.int64], categories: int, scale: Literal["identity", "linear", "quadratic"] = "identity"
) -> Statistic:
    """``cohen`` of two raters' (U,) category numbers as a function of (B, U) weights; a negative number is a missing rating."""
    both = (first >= 0) & (second >= 0)
    cells = np.eye(categories**2)[first[both] * categories + second[both]]
    return lambda weights: _kappas((weights[:, both] @ cells).reshape(-1, categories, categories), scale)


def pair_table(first: NDArray[np.int64], second: NDArray[np.int64], categories: int, weights: Floats | None = None) -> Floats:
    """(C, C) table of two raters' category numbers for the same units; a negative number is a missing rating."""
    both = (first >= 0) & (second >= 0)
    cells = first[both] * categories + second[both]
    given = None if weights is None else weights[both]
    return np.bincount(cells, given, minlength=categories**2).astype(np.float64).reshape(categories, categories)


def _kappas(tables: Floats, scale: Literal["identity", "linear", "quadratic"]) -> Floats:
    """(B,) kappas of (B, C, C) tables: 1 less the observed disagreement over what chance gives; NaN where both said the same one thing."""
    apart = np.abs(np.subtract.outer(np.arange(tables.shape[1]), np.arange(tables.shape[1]))).astype(np.float64)
    distance = {"identity": (apart > 0).astype(np.float64), "linear": apart, "quadratic": apart**2}[scale]
    chance = tables.sum(axis=2)[:, :, None] * tables.sum(axis=1)[:, None, :]
    expected = (distance * chance).sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, 1 - (distance * tables).sum(axis=(1, 2)) * tables.sum(axis=(1, 2)) / expected, np.nan)
