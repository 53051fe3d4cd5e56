"""Statistics that hold for answers to prompts: pure functions, no files, no models.

    values (one a response) + clusters (the prompt's source) ─→ rate ± interval           `clustered_rate`
    before/after values of the same items + clusters         ─→ difference ± interval, p  `paired_difference`
    values of two groups that share no item                  ─→ difference ± interval, p  `independent_difference`
    p-values of one declared family                          ─→ Holm-adjusted p-values     `holm`

The unit of independence is the CLUSTER: the document or entry that a prompt was made from. Treating several samples of one prompt as
independent makes a nominal 95% interval cover far less and a test find what is not there. One response a cluster: Wilson, Tango,
exact McNemar. Several: Wilson on the effective sample size, cluster bootstrap, sign-flip permutation over clusters.
Randomised procedures take a seed and are bit-reproducible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binomtest, norm, t
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint, test_proportions_2indep

RESAMPLES = 4000
PERMUTATIONS = 20000
EXACT_CLUSTERS = 14  # up to here all 2**k sign patterns are enumerated
_CHUNK = 2000


@dataclass(frozen=True)
class Rate:
    """A rate with its interval. ``effective`` is the number of independent observations that the interval rests on."""

    rate: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int
    effective: float


@dataclass(frozen=True)
class Difference:
    """``after - before`` over the same items. ``better``/``worse`` count the pairs that changed; ``test`` names interval and test."""

    delta: float | None
    low: float | None
    high: float | None
    p: float | None
    n: int
    clusters: int
    better: int
    worse: int
    test: str


def wilson(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); ``n`` may be an effective, fractional sample size."""
    if n <= 0:
        raise ValueError("an interval needs at least one observation")
    low, high = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    return max(0.0, float(low)), min(1.0, float(high))


def _by_cluster(values: Sequence[float], clusters: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of the values and number of values of each cluster, in order of first appearance."""
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values but {len(clusters)} clusters")
    index: dict[str, int] = {}
    places = np.fromiter((index.setdefault(c, len(index)) for c in clusters), dtype=np.int64, count=len(clusters))
    sizes = np.bincount(places, minlength=len(index)).astype(np.float64)
    totals = np.zeros(len(index))
    np.add.at(totals, places, np.asarray(values, dtype=np.float64))
    return totals, sizes


def effective_n(values: Sequence[float], clusters: Sequence[str], confidence: float = 0.95) -> float:
    """How many independent observations the mean of ``values`` is worth: p (1 - p) / Var(mean), degrees of freedom corrected.

    Var is the linearised between-cluster variance; the factor (t_{n-1} / t_{G-1})^2 is Korn and Graubard's (1998, Survey Methodology
    24); Wilson on such an n is among the intervals compared by Franco, Little, Louis and Slud (2019, J. Survey Stat. Methodol. 7).
    Binary values never count for more than n. Fractions (a mean over rules) may, since their variance is below p (1 - p). Without any
    between-cluster variance (all kept, all broken) the clusters themselves are counted.
    """
    total, sizes = _by_cluster(values, clusters)
    n, groups = float(sizes.sum()), len(sizes)
    binary = all(v in (0.0, 1.0) for v in values)
    if binary and groups == n:
        return n
    mean = float(total.sum() / n)
    if groups < 2:
        return 1.0
    variance = float(((total - mean * sizes) ** 2).sum()) / n**2 * groups / (groups - 1)
    if variance <= 1e-15 or mean in (0.0, 1.0):
        return float(groups)
    tail = 1 - (1 - confidence) / 2
    correction = float(t.ppf(tail, n - 1) / t.ppf(tail, groups - 1)) ** 2 if n > 1 else 1.0
    raw = mean * (1 - mean) / variance * correction
    return max(1.0, min(raw, n)) if binary else max(1.0, raw)


def clustered_rate(values: Sequence[float], clusters: Sequence[str], confidence: float = 0.95) -> Rate:
    """Mean of values in [0, 1] with Wilson's interval on the effective sample size (plain Wilson for one binary value a cluster)."""
    if not values:
        return Rate(None, None, None, 0, 0, 0.0)
    effective = effective_n(values, clusters, confidence)
    mean = float(np.mean(np.asarray(values, dtype=np.float64)))
    low, high = wilson(mean * effective, effective, confidence)
    return Rate(mean, min(low, mean), max(high, mean), len(values), len(set(clusters)), effective)


def mcnemar_exact(better: int, worse: int) -> float:
    """Exact two-sided McNemar test: are the discordant pairs a fair coin? (McNemar 1947; binomial form)."""
    discordant = better + worse
    return 1.0 if discordant == 0 else float(binomtest(better, discordant, 0.5).pvalue)


def tango_score(better: float, worse: float, n: float, d: float) -> float:
    """The score statistic z of H0: the paired difference is ``d`` (Tango 1998, Statistics in Medicine 17, 891-908).

    z(d) = (b - c - n d) / sqrt(n (2 q + d (1 - d))), q the constrained maximum-likelihood estimate of the share of pairs that got worse.
    """
    a = 2 * n
    b = -better - worse + (2 * n - better + worse) * d
    c = -worse * d * (1 - d)
    q = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = n * (2 * q + d * (1 - d))
    gap = better - worse - n * d
    return gap / math.sqrt(variance) if variance > 1e-12 else math.copysign(math.inf, gap) if abs(gap) > 1e-9 else 0.0


def tango(better: float, worse: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of the paired difference (better - worse) / n: all d that the score test does not reject (Tango 1998)."""
    if n <= 0 or better + worse > n + 1e-9:
        raise ValueError("discordant pairs must be among n > 0 pairs")
    z = float(norm.ppf(1 - (1 - confidence) / 2))
    estimate = (better - worse) / n

    def score(d: float) -> float:
        return tango_score(better, worse, n, d)

    edge = 1 - 1e-9
    low = -1.0 if estimate <= -edge or score(-edge) < z else float(brentq(lambda d: min(score(d), 1e6) - z, -edge, estimate))
    high = 1.0 if estimate >= edge or score(edge) > -z else float(brentq(lambda d: max(score(d), -1e6) + z, estimate, edge))
    return low, high


def paired_bootstrap(
    differences: Sequence[float], clusters: Sequence[str], *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean difference, whole clusters drawn with replacement (Davison and Hinkley 1997, section 3.8)."""
    total, sizes = _by_cluster(differences, clusters)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        drawn = random.integers(0, len(total), size=(count, len(total)))
        means[start : start + count] = total[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def sign_flip(differences: Sequence[float], clusters: Sequence[str], *, seed: int = 0, permutations: int = PERMUTATIONS) -> float:
    """Two-sided sign-flip permutation test of "no difference" on the cluster means, each weighted by the cluster's size.

    Under the null before and after are exchangeable within a cluster, so every sign pattern is equally likely (Good 2005, chapter 3).
    All patterns are enumerated up to 14 clusters that differ; beyond, p = (1 + as extreme) / (1 + drawn) (Phipson and Smyth 2010).
    """
    total, _ = _by_cluster(differences, clusters)
    total = total[np.abs(total) > 1e-12]  # a cluster without a difference is the same whatever its sign
    if len(total) == 0:
        return 1.0
    observed = abs(float(total.sum())) - 1e-9
    if len(total) <= EXACT_CLUSTERS:
        patterns = ((np.arange(2 ** len(total))[:, None] >> np.arange(len(total))) & 1) * 2.0 - 1.0
        return float((np.abs(patterns @ total) >= observed).mean())
    random = np.random.default_rng(seed)
    extreme = 0
    for start in range(0, permutations, _CHUNK):
        signs = random.integers(0, 2, size=(min(_CHUNK, permutations - start), len(total)), dtype=np.int8).astype(np.float64)
        extreme += int((np.abs((signs * 2 - 1) @ total) >= observed).sum())
    return (1 + extreme) / (1 + permutations)


def paired_difference(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[str], *, seed: int = 0, confidence: float = 0.95
) -> Difference:
    """``after - before`` of the same items, with the interval and the test that fit the data.

    One binary pair a cluster: Tango's interval and exact McNemar. Otherwise: paired cluster bootstrap and sign-flip permutation. When
    every cluster changed by the same amount the bootstrap has no width to show, although the sample is finite: then Tango's interval
    stands in, each cluster counting as one pair.
    """
    if not before:
        return Difference(None, None, None, None, 0, 0, 0, 0, "none")
    pairs = list(zip(before, after, strict=True))
    change = [b - a for a, b in pairs]
    better, worse = sum(d > 1e-12 for d in change), sum(d < -1e-12 for d in change)
    groups, delta = len(set(clusters)), float(np.mean(change))
    if groups == len(pairs) and all(a in (0.0, 1.0) and b in (0.0, 1.0) for a, b in pairs):
        low, high = tango(better, worse, len(pairs), confidence)
        return Difference(delta, low, high, mcnemar_exact(better, worse), len(pairs), groups, better, worse, "tango+mcnemar")
    low, high = paired_bootstrap(change, clusters, seed=seed, confidence=confidence)
    name = "cluster_bootstrap+sign_flip"
    if high - low < 1e-9 and all(0 <= v <= 1 for pair in pairs for v in pair):
        low, high = tango(max(delta, 0.0) * groups, max(-delta, 0.0) * groups, groups, confidence)
        name = "cluster_tango+sign_flip"
    return Difference(
        delta, min(low, delta), max(high, delta), sign_flip(change, clusters, seed=seed), len(pairs), groups, better, worse, name
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given (Holm 1979): any of them below alpha holds the family-wise error at alpha."""
    if not p_values:
        return []
    return [float(p) for p in multipletests(list(p_values), method="holm")[1]]


def non_inferior(low: float, margin: float) -> bool:
    """Is "after is worse by ``margin`` or more" excluded by the interval's lower end? (one-sided, at half the interval's alpha)."""
    if margin <= 0:
        raise ValueError("a non-inferiority margin is a positive number")
    return low > -margin


def non_inferiority_p(before: Sequence[float], after: Sequence[float], clusters: Sequence[str], margin: float) -> float:
    """One-sided p of "after is worse than before by ``margin`` or more", the same items on both sides.

    One binary pair a cluster: Tango's score test at d = -margin (Tango 1998, section 3). Otherwise Student's t on the linearised
    cluster totals with one degree of freedom less than there are clusters.
    """
    if margin <= 0:
        raise ValueError("a non-inferiority margin is a positive number")
    pairs = list(zip(before, after, strict=True))
    if not pairs:
        return 1.0
    change = [b - a for a, b in pairs]
    total, sizes = _by_cluster(change, clusters)
    groups, n = len(sizes), float(sizes.sum())
    if groups == n and all(v in (0.0, 1.0) for pair in pairs for v in pair):
        return float(norm.sf(tango_score(sum(d > 0 for d in change), sum(d < 0 for d in change), n, -margin)))
    if groups < 2:
        return 1.0
    mean = float(total.sum() / n)
    variance = float(((total - mean * sizes) ** 2).sum()) / n**2 * groups / (groups - 1)
    if variance <= 1e-15:  # every cluster changed alike: only their number speaks, each counted as one pair
        return float(norm.sf(tango_score(max(mean, 0.0) * groups, max(-mean, 0.0) * groups, groups, -margin)))
    return float(t.sf((mean + margin) / math.sqrt(variance), groups - 1))


def independent_difference(
    first: Sequence[float], second: Sequence[float], clusters: tuple[Sequence[str], Sequence[str]], confidence: float = 0.95
) -> tuple[float, float, float, float]:
    """``second - first`` of two groups that share no item: (delta, low, high, p).

    Newcombe's hybrid score interval (1998, Statistics in Medicine 17, 873-890, method 10) and the score test of equal rates (Farrington
    and Manning 1990), both on the effective numbers of observations of the two groups.
    """
    n = [effective_n(v, c, confidence) for v, c in zip((first, second), clusters, strict=True)]
    rates = [float(np.mean(np.asarray(v, dtype=np.float64))) for v in (first, second)]
    counts = [rate * size for rate, size in zip(rates, n, strict=True)]
    low, high = confint_proportions_2indep(counts[1], n[1], counts[0], n[0], compare="diff", method="newcomb", alpha=1 - confidence)
    if counts[0] + counts[1] <= 0 or counts[0] + counts[1] >= n[0] + n[1]:
        p = 1.0
    else:
        with np.errstate(divide="ignore", invalid="ignore"):  # it works out the odds ratio too, which a rate of 0 or 1 has none of
            p = float(test_proportions_2indep(counts[1], n[1], counts[0], n[0], compare="diff", method="score").pvalue)
    return rates[1] - rates[0], float(low), float(high), p


def smallest_p(discordant: int) -> float:
    """The smallest p that exact McNemar can give with so many discordant pairs: 2 / 2**discordant (5 : 0 gives .0625)."""
    return min(1.0, 2.0 * 0.5**discordant)


def pairs_needed(difference: float, discordant: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Pairs needed to find ``difference`` when a share ``discordant`` of pairs changes (Connor 1987, Biometrics 43, 207-211).

    n = (z_{1-alpha/2} sqrt(psi) + z_power sqrt(psi - d^2))^2 / d^2, psi the discordant share, d the difference.
    """
    d, psi = abs(difference), max(discordant, abs(difference))
    if not 0 < d <= 1 or psi > 1:
        raise ValueError("difference and discordant share lie in (0, 1]")
    root = float(norm.ppf(1 - alpha / 2)) * math.sqrt(psi) + float(norm.ppf(power)) * math.sqrt(max(psi - d * d, 0.0))
    return math.ceil(root**2 / d**2)


def too_few(pairs: int, discordant: float, p: float | None, detect: float = 0.1, alpha: float = 0.05) -> int | None:
    """The power note: pairs needed to find a change of ``detect``, or None when the data decide or are enough.

    ``pairs`` counts independent pairs (clusters), ``discordant`` is the share of pairs that changed. A test that did not reach
    ``alpha`` with fewer pairs than needed has not shown that nothing changed: it was too small to tell.
    """
    if p is not None and p <= alpha:
        return None
    needed = pairs_needed(detect, discordant, alpha=alpha)
    return needed if pairs < needed else None
