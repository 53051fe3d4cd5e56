"""Agreement coefficients against published numbers, slow loops over pairs written from the papers, and peer libraries."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

from norma.labels.agreement import (
    alpha,
    alpha_of,
    category_weights,
    cohen,
    count_ratings,
    fleiss,
    gwet,
    kappa_of,
    pair_table,
    raw_agreement,
)
from norma.labels.bootstrap import interval, kinds

N = float("nan")
# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", example C/D: 4 observers (rows), 12 units, missing data.
KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
        [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
    ]
).T
# Gwet (2014), Handbook of Inter-Rater Reliability, table 3.5: two raters, A B C as 0 1 2.
GWET = np.array([[0, N], [1, 2], [2, 2], [2, 2], [1, 1], [1, N], [0, 0], [0, 1], [1, 1], [1, 1], [N, 2]])


def test_krippendorff_published() -> None:
    counts, values = count_ratings(KRIPPENDORFF)
    assert alpha(counts) == pytest.approx(0.743, abs=5e-4)
    assert alpha(counts, values, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert alpha(counts, values, "interval") == pytest.approx(0.849, abs=5e-4)


def test_krippendorff_binary_by_hand() -> None:
    """Two observers, ten units, binary (example A of the paper): o_01 = o_10 = 4, n_0 = 14, n_1 = 6, alpha = 1 - 19 x 4 / (14 x 6)."""
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    counts, _ = count_ratings(np.array([first, second]).T)
    assert alpha(counts) == pytest.approx(1 - 19 * 4 / (14 * 6)) == pytest.approx(0.095, abs=5e-4)


def test_gwet_published() -> None:
    counts, values = count_ratings(KRIPPENDORFF)  # the same data in Gwet (2014), pages 55 and 56, with the errata
    assert raw_agreement(counts) == pytest.approx(0.8182, abs=5e-5)
    assert gwet(counts) == pytest.approx(0.7754, abs=5e-5)
    assert fleiss(counts) == pytest.approx(0.7612, abs=5e-5)
    counts, values = count_ratings(GWET)  # page 84, quadratic weights
    quadratic = category_weights(values, "quadratic")
    assert gwet(counts, quadratic) == pytest.approx(0.8261, abs=1e-4)
    assert fleiss(counts, quadratic) == pytest.approx(0.7673, abs=5e-5)
    assert alpha(counts, values, "interval") == pytest.approx(0.7581, abs=5e-5)


def test_skew() -> None:
    """994 of 1000 answers both say yes, 6 times one says no: chance-corrected agreement falls below zero, AC1 does not."""
    table = np.array([[994.0, 3.0], [3.0, 0.0]])
    counts = np.array([[2.0, 0.0]] * 994 + [[1.0, 1.0]] * 6)
    assert raw_agreement(counts) == pytest.approx(0.994)
    assert cohen(table) == pytest.approx((0.994 - 0.994018) / (1 - 0.994018), abs=1e-9)  # margins .997, .003
    assert round(cohen(table), 3) == -0.003
    assert round(gwet(counts), 3) == 0.994
    assert alpha(counts) == pytest.approx(1 - 1999 * 6 / (1994 * 6))


def test_cohen_by_hand() -> None:
    """Cohen (1960), table 1: p_o = .70 of 200, p_e = .41, kappa = .492."""
    table = np.array([[88, 14, 18], [10, 40, 10], [2, 6, 12]], dtype=float)
    assert cohen(table) == pytest.approx((0.70 - 0.41) / (1 - 0.41))
    # Weighted by the distance of the categories: 1 - sum w o / sum w e with w = |i - j| (and its square), over the cells.
    for scale, power in (("linear", 1), ("quadratic", 2)):
        n = table.sum()
        observed = sum(abs(i - j) ** power * table[i, j] for i in range(3) for j in range(3)) / n
        expected = sum(abs(i - j) ** power * table[i].sum() * table[:, j].sum() for i in range(3) for j in range(3)) / n**2
        assert cohen(table, scale) == pytest.approx(1 - observed / expected)  # type: ignore[arg-type]
    assert math.isnan(cohen(np.array([[5.0, 0.0], [0.0, 0.0]]))) and math.isnan(cohen(np.zeros((2, 2))))


def _slow_alpha(ratings: NDArray[np.float64], metric: str) -> float:
    """Pair by pair, from the definition: mean distance within units over mean distance of all pairs of the pairable ratings."""
    units = [[v for v in row if not math.isnan(v)] for row in ratings]
    units = [u for u in units if len(u) > 1]
    pooled = [v for u in units for v in u]
    if len(set(pooled)) < 2:
        return N
    levels = sorted(set(pooled))

    def distance(a: float, b: float) -> float:
        if metric == "nominal":
            return float(a != b)
        if metric == "interval":
            return (a - b) ** 2
        low, high = min(a, b), max(a, b)
        return (sum(pooled.count(g) for g in levels if low <= g <= high) - (pooled.count(a) + pooled.count(b)) / 2) ** 2

    n = len(pooled)
    within = sum(sum(distance(a, b) for a, b in itertools.permutations(u, 2)) / (len(u) - 1) for u in units) / n
    overall = sum(distance(a, b) for a, b in itertools.permutations(pooled, 2)) / (n * (n - 1))
    return 1 - within / overall


@st.composite
def _ratings(draw: st.DrawFn) -> NDArray[np.float64]:
    raters, units, levels = draw(st.integers(2, 4)), draw(st.integers(1, 7)), draw(st.integers(1, 4))
    cell = st.one_of(st.just(N), st.integers(1, levels).map(float))
    return np.array(draw(st.lists(st.lists(cell, min_size=raters, max_size=raters), min_size=units, max_size=units)))


@settings(max_examples=60, deadline=None)
@given(_ratings(), st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_is_its_definition(ratings: NDArray[np.float64], metric: str) -> None:
    counts, values = count_ratings(ratings)
    expected = _slow_alpha(ratings, metric)
    found = alpha(counts, values, metric)  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=1e-9) or (math.isnan(found) and math.isnan(expected))
    if len(values):  # any affine change of the scale, any order of units and raters
        again, stretched = count_ratings(3 * ratings[::-1, ::-1] - 7)
        other = alpha(again, stretched, metric)  # type: ignore[arg-type]
        assert other == pytest.approx(found, abs=1e-9) or (math.isnan(found) and math.isnan(other))


def test_alpha_beside_a_peer() -> None:
    peer = pytest.importorskip("krippendorff")
    random = np.random.default_rng(3)
    truth = random.integers(1, 8, size=(60, 1))
    ratings = np.clip(truth + random.integers(-2, 3, size=(60, 6)), 1, 9).astype(float)
    ratings[random.random(ratings.shape) < 0.4] = N
    counts, values = count_ratings(ratings)
    for metric in ("nominal", "ordinal", "interval"):
        assert alpha(counts, values, metric) == pytest.approx(peer.alpha(ratings.T, level_of_measurement=metric), abs=1e-10)  # type: ignore[arg-type]


def _slow_gwet(ratings: NDArray[np.float64], values: list[float], agree: NDArray[np.float64]) -> float:
    index = {v: i for i, v in enumerate(values)}
    rows = [[index[v] for v in row if not math.isnan(v)] for row in ratings]
    pairs = [np.mean([agree[a, b] for a, b in itertools.permutations(row, 2)]) for row in rows if len(row) > 1]
    rated = [row for row in rows if row]
    pi = [np.mean([row.count(c) / len(row) for row in rated]) for c in range(len(values))]
    chance = agree.sum() / (len(values) * (len(values) - 1)) * sum(p * (1 - p) for p in pi)
    return float((np.mean(pairs) - chance) / (1 - chance))


@pytest.mark.parametrize("scale", ["identity", "linear", "quadratic", "ordinal"])
def test_gwet_is_its_definition(scale: str) -> None:
    random = np.random.default_rng(5)
    for _ in range(20):
        ratings = random.integers(1, 5, size=(9, 4)).astype(float)
        ratings[random.random(ratings.shape) < 0.3] = N
        values = [1.0, 2.0, 3.0, 4.0, 5.0]  # 5 is never used, and counts as a category
        counts, known = count_ratings(ratings, values)
        agree = category_weights(known, scale)  # type: ignore[arg-type]
        assert gwet(counts, agree) == pytest.approx(_slow_gwet(ratings, values, agree), abs=1e-12)
    # Of three categories, neighbours are one pair apart, the ends three pairs.
    assert category_weights([1, 2, 3], "ordinal") == pytest.approx(np.array([[1, 2 / 3, 0], [2 / 3, 1, 2 / 3], [0, 2 / 3, 1]]))


def test_fleiss_beside_statsmodels() -> None:
    random = np.random.default_rng(1)
    counts = random.multinomial(5, [0.5, 0.3, 0.2], size=40).astype(float)
    assert fleiss(counts) == pytest.approx(fleiss_kappa(counts), abs=1e-12)


def test_nothing_to_compare() -> None:
    counts, values = count_ratings([[1, N], [N, 2]])
    assert math.isnan(alpha(counts)) and math.isnan(gwet(counts)) and math.isnan(raw_agreement(counts)) and math.isnan(fleiss(counts))
    same, values = count_ratings([[1, 1], [1, 1]], [0, 1])
    assert math.isnan(alpha(same, values, "interval")) and gwet(same) == 1.0
    with pytest.raises(ValueError, match="not among"):
        count_ratings([[3.0]], [1, 2])


def test_pair_table() -> None:
    table = pair_table(np.array([0, 1, 1, -1, 2]), np.array([0, 1, 2, 1, -1]), 3, np.array([1.0, 2, 3, 4, 5]))
    assert table.tolist() == [[1, 0, 0], [0, 2, 3], [0, 0, 0]]


def test_the_bootstrap_over_kinds_is_the_bootstrap_over_units() -> None:
    """The variance of a mean over n units drawn again is s² / n, whichever way equal units are written down."""
    rows = np.array([[1, 0]] * 30 + [[0, 1]] * 10)
    places, numbers = kinds(rows)
    assert sorted(numbers.tolist()) == [10, 30]
    kind = rows[places]
    drawn: list[float] = []

    def mean(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        means = weights @ kind[:, 0] / 40
        drawn.extend(means.tolist())
        return np.asarray(means)

    found = interval(mean, numbers, resamples=4000, seed=2)
    assert found.value == 0.75 and found.units == 40
    assert np.std(drawn[1:]) == pytest.approx(math.sqrt(0.75 * 0.25 / 40), rel=0.04)
    assert interval(mean, numbers, resamples=500, seed=2) == interval(mean, numbers, resamples=500, seed=2)
    assert (found.low, found.high) == pytest.approx((0.75 - 1.96 * 0.0685, 0.75 + 1.96 * 0.0685), abs=0.02)


def test_intervals_cover() -> None:
    """Three raters who copy a fair coin with probability .8 and guess otherwise: alpha is .64; 95% intervals of 80 items."""
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(120):
        truth = random.integers(0, 2, size=(80, 1))
        ratings = np.where(random.random((80, 3)) < 0.8, truth, random.integers(0, 2, size=(80, 3)))
        counts, _ = count_ratings(ratings, [0, 1])
        places, numbers = kinds(counts)
        kind = counts[places]
        found = interval(alpha_of(kind), numbers, resamples=200, seed=trial)
        covered += found.low <= 0.64 <= found.high
    assert 0.88 <= covered / 120 <= 1.0  # 95%, less three standard errors of 120 trials and a little for the percentile method


def test_an_interval_needs_numbers() -> None:
    found = interval(lambda w: np.where(w[:, 1] == 0, N, 1.0), np.array([40, 1]), resamples=400)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)  # 63% of resamples hold the one unit
    found = interval(lambda w: np.full(len(w), N), np.array([3, 1]), resamples=50)
    assert math.isnan(found.value) and math.isnan(found.low)


def test_all_resamples_at_once_are_each_resample_alone() -> None:
    random = np.random.default_rng(11)
    codes = random.integers(-1, 3, size=(30, 2))
    counts = np.stack([(codes == c).sum(axis=1) for c in range(3)], axis=1).astype(float)
    weights = random.integers(0, 4, size=(7, 30)).astype(float)
    for metric in ("nominal", "ordinal", "interval"):
        alone = [alpha(counts, np.arange(3.0), metric, w) for w in weights]  # type: ignore[arg-type]
        assert alpha_of(counts, np.arange(3.0), metric)(weights) == pytest.approx(np.array(alone), abs=1e-12)  # type: ignore[arg-type]
    for scale in ("identity", "linear", "quadratic"):
        tables = [pair_table(codes[:, 0], codes[:, 1], 3, w) for w in weights]
        peer = [cohens_kappa(t, wt=None if scale == "identity" else scale, return_results=False) for t in tables]
        assert kappa_of(codes[:, 0], codes[:, 1], 3, scale)(weights) == pytest.approx(np.array(peer), abs=1e-12)  # type: ignore[arg-type]
