"""Oracles: published worked examples, hand-worked numbers, brute force, and simulated coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from norma.evaluate import statistics as s


# Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3.
@pytest.mark.parametrize(
    ("x", "n", "low", "high"), [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
)
def test_wilson_published(x: int, n: int, low: float, high: float) -> None:
    assert s.wilson(x, n) == pytest.approx((low, high), abs=5e-5)


# Airway hyper-responsiveness before and after stem cell transplantation (Bentur et al. 2009): 1 both, 1 before only, 7 after only,
# 12 neither; Fagerland, Lydersen and Laake 2014, Statistics in Medicine 33, 2850-2875: exact McNemar .070, Tango -.517 to -.026.
def test_paired_published() -> None:
    assert s.mcnemar_exact(7, 1) == pytest.approx(0.0703125)  # 2 (C(8,0) + C(8,1)) / 2**8 = 18 / 256
    assert s.tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert s.tango(7, 1, 21) == pytest.approx((0.026, 0.517), abs=5e-4)


# Tango 1998, section 6: two ways of disinfecting soft contact lenses, 44 pairs, one of them discordant; is the new one not inferior by
# more than 10 points? z = 1.709, one-sided p = .044.
def test_tangos_own_example() -> None:
    assert s.tango_score(0, 1, 44, -0.1) == pytest.approx(1.709, abs=5e-4)
    before, after, clusters = [1.0] * 44, [1.0] * 43 + [0.0], [str(i) for i in range(44)]
    assert s.non_inferiority_p(before, after, clusters, 0.1) == pytest.approx(0.044, abs=5e-4)
    # the interval at half that confidence ends at the margin where the test does: one question, asked twice
    assert s.tango(0, 1, 44, confidence=0.90)[0] > -0.1 > s.tango(0, 1, 44, confidence=0.95)[0]


# Newcombe 1998, Statistics in Medicine 17, 873-890, table II, contrast (a), method 10: 56/70 - 48/80 is .0524 to .3339.
def test_independent_published() -> None:
    first, second = [1.0] * 48 + [0.0] * 32, [1.0] * 56 + [0.0] * 14
    clusters = ([f"a{i}" for i in range(80)], [f"b{i}" for i in range(70)])
    delta, low, high, p = s.independent_difference(first, second, clusters)
    assert (delta, low, high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    # the score test of equal rates is the pooled z by hand: .2 / sqrt(104/150 * 46/150 * (1/70 + 1/80)) = 2.650
    assert p == pytest.approx(2 * 0.00403, abs=2e-4)
    assert s.independent_difference([1.0] * 5, [1.0] * 5, (list("abcde"), list("fghij")))[3] == 1.0
    doubled = s.independent_difference(first * 2, second * 2, (clusters[0] * 2, clusters[1] * 2))
    assert doubled[:3] == pytest.approx((0.2, 0.0524, 0.3339), abs=0.004)  # each answer given twice is no new evidence


def _tango_slow(b: float, c: float, n: float, z: float = 1.959964) -> tuple[float, float]:
    """Score test over a grid of d; the nuisance share maximises the trinomial likelihood on a grid, without the closed form."""
    kept = []
    for d in np.linspace(-0.999, 0.999, 1999):
        q = np.linspace(max(0.0, -d), (1 - d) / 2, 4001)[1:-1]  # q: share worse, q + d: share better
        likelihood = b * np.log(q + d) + c * np.log(q) + (n - b - c) * np.log(1 - 2 * q - d)
        best = q[np.argmax(likelihood)]
        if abs(b - c - n * d) / math.sqrt(n * (2 * best + d * (1 - d))) < z:
            kept.append(d)
    return min(kept), max(kept)


@pytest.mark.parametrize(("b", "c", "n"), [(9, 3, 40), (2, 2, 25), (30, 1, 60)])
def test_tango_against_a_grid(b: int, c: int, n: int) -> None:
    assert s.tango(b, c, n) == pytest.approx(_tango_slow(b, c, n), abs=0.0025)


def test_tango_edges() -> None:
    zero = s.tango(0, 0, 100)  # with no discordant pair the score equation solves to z^2 / (n + z^2)
    assert zero == pytest.approx((-3.8415 / 103.8415, 3.8415 / 103.8415), abs=1e-4)
    low, high = s.tango(50, 0, 50)
    assert high == 1.0 and 0.85 < low < 1.0
    assert s.tango(0, 50, 50)[0] == -1.0
    with pytest.raises(ValueError):
        s.tango(3, 3, 5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 40))
def test_tango_is_odd_and_holds_the_estimate(b: int, c: int, rest: int) -> None:
    n = b + c + rest
    low, high = s.tango(b, c, n)
    assert -1 <= low <= (b - c) / n + 1e-9 and (b - c) / n - 1e-9 <= high <= 1
    assert s.tango(c, b, n) == pytest.approx((-high, -low), abs=1e-6)


def test_mcnemar_by_hand() -> None:
    assert s.mcnemar_exact(5, 0) == 0.0625 == s.smallest_p(5)
    assert s.mcnemar_exact(0, 0) == 1.0
    assert s.mcnemar_exact(3, 1) == pytest.approx(10 / 16)


def test_holm_by_hand() -> None:
    # .01 x 4, .02 x 3, then max(.06, .03 x 2), then max(.06, .04)
    assert s.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert s.holm([]) == []


def test_power_notes() -> None:
    assert s.pairs_needed(0.10, 0.20) == 155  # 80% to 90% with discordance .15/.05
    assert s.smallest_p(4) == 0.125
    assert s.too_few(20, 4 / 20, p=0.625) == 155
    assert s.too_few(400, 0.2, p=1.0) is None  # enough pairs: nothing found is a finding
    assert s.too_few(20, 0.75, p=6e-5) is None  # decided
    assert s.too_few(0, 0.0, p=None) is not None


def test_sign_flip_enumerates() -> None:
    differences, clusters = [0.5, 0.25, 1.0, -0.25, 0.5], ["a", "b", "c", "d", "a"]
    sums = [1.0, 0.25, 1.0, -0.25]
    count = sum(abs(sum(x * y for x, y in zip(sums, signs, strict=True))) >= 2.0 for signs in itertools.product((-1, 1), repeat=4))
    assert s.sign_flip(differences, clusters) == count / 16
    assert s.sign_flip([0, 0], ["a", "b"]) == 1.0
    assert s.sign_flip([1.0] * 5, list("abcde")) == 2 / 32


def test_sign_flip_sampled_agrees_with_exact() -> None:
    random = np.random.default_rng(3)
    values, clusters = list(random.normal(0.25, 1, 14)), [str(i) for i in range(14)]
    exact = s.sign_flip(values, clusters)
    sampled = s.sign_flip([*values, 1e-6, -1e-6], [*clusters, "x", "y"], permutations=40000)
    assert sampled == pytest.approx(exact, abs=0.012)
    assert s.sign_flip([*values, 1e-6], [*clusters, "x"], seed=4) == s.sign_flip([*values, 1e-6], [*clusters, "x"], seed=4)


def test_effective_n_by_hand() -> None:
    # Three clusters of two identical values: the six answers are worth three. mean 2/3, deviations of the sums 2/3, 2/3, -4/3.
    values, clusters = [1, 1, 1, 1, 0, 0], list("aabbcc")
    variance = (4 / 9 + 4 / 9 + 16 / 9) / 36 * 3 / 2
    from scipy.stats import t

    expected = (2 / 9) / variance * (t.ppf(0.975, 5) / t.ppf(0.975, 2)) ** 2
    assert s.effective_n(values, clusters) == pytest.approx(max(1.0, expected))
    assert s.effective_n([1, 0, 1], list("abc")) == 3
    assert s.effective_n([1] * 6, clusters) == 3
    rate = s.clustered_rate([1, 0, 1, 1], list("abcd"))
    assert (rate.low, rate.high) == pytest.approx(s.wilson(3, 4))
    assert s.clustered_rate([], []).rate is None


def test_difference_of_equal_clusters_keeps_a_width() -> None:
    clusters = [str(i // 2) for i in range(40)]
    change = s.paired_difference([0.0] * 40, [1.0] * 40, clusters)
    assert change.delta == 1.0 and change.high == 1.0 and 0.6 < (change.low or 0) < 1.0
    same = s.paired_difference([0.5] * 40, [0.5] * 40, clusters)
    assert same.p == 1.0 and (same.low or 0) < 0 < (same.high or 0)


def test_difference_chooses_by_the_data() -> None:
    single = s.paired_difference([0, 0, 1, 1], [1, 1, 1, 0], list("abcd"))
    assert single.test == "tango+mcnemar" and (single.better, single.worse) == (2, 1)
    assert s.paired_difference([0, 0, 1, 1], [1, 1, 1, 0], list("aabb")).test == "cluster_bootstrap+sign_flip"
    assert s.paired_difference([], [], []).delta is None


def test_non_inferior() -> None:
    assert s.non_inferior(-0.04, 0.05) and not s.non_inferior(-0.06, 0.05)
    with pytest.raises(ValueError):
        s.non_inferior(0.0, 0.0)


def test_non_inferiority_on_clusters() -> None:
    """Several answers a cluster: Student's t by hand, and the number of clusters alone when all changed alike."""
    before, clusters = [1.0] * 8, list("aabbccdd")
    after = [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0]  # cluster sums of change 0, -1, 0, -1: mean -1/4 of 8
    # linearised totals minus mean times size: 1/2, -1/2, 1/2, -1/2; variance 1 / 64 * 4/3; t = (-.25 + .5) / .1443 = 1.732, 3 df
    assert s.non_inferiority_p(before, after, clusters, 0.5) == pytest.approx(0.0909, abs=2e-4)
    few = s.non_inferiority_p([1.0] * 6, [1.0] * 6, list("aabbcc"), 0.05)
    many = s.non_inferiority_p([1.0] * 200, [1.0] * 200, [str(i // 2) for i in range(200)], 0.05)
    assert few > 0.3 and many < 0.05 and s.non_inferiority_p([], [], [], 0.05) == 1.0


def test_a_change_that_is_no_rate_keeps_its_size() -> None:
    found = s.paired_difference([10.0, 20.0], [15.0, 25.0], list("ab"))
    assert (found.delta, found.low, found.high) == (5.0, 5.0, 5.0)


def _clustered(random: np.random.Generator, groups: int, samples: int, rate: float, strength: float) -> tuple[list[float], list[str]]:
    """Beta-binomial answers: ``samples`` a prompt, intra-cluster correlation 1 / (strength + 1)."""
    p = random.beta(rate * strength, (1 - rate) * strength, size=groups)
    values = (random.random((groups, samples)) < p[:, None]).astype(float).ravel()
    return list(values), [str(i) for i in range(groups) for _ in range(samples)]


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "groups"), [(0.7, 60), (0.9, 100)])
def test_clustered_interval_covers_where_plain_wilson_does_not(rate: float, groups: int) -> None:
    random = np.random.default_rng(11)
    held = plain = 0
    trials = 600
    for _ in range(trials):
        values, clusters = _clustered(random, groups, 8, rate, 1.0)
        estimate = s.clustered_rate(values, clusters)
        held += (estimate.low or 0) <= rate <= (estimate.high or 0)
        low, high = s.wilson(sum(values), len(values))
        plain += low <= rate <= high
    assert held / trials > 0.92
    assert plain / trials < 0.80


@pytest.mark.slow
def test_paired_procedures_hold_their_level_under_clustering() -> None:
    random = np.random.default_rng(12)
    rejected = covered = naive = 0
    trials = 400
    for _ in range(trials):
        groups, samples = 40, 6
        p = random.beta(1, 1, size=(groups, 2))  # before and after differ by prompt, not on average
        before, after = ((random.random((groups, samples)) < p[:, [side]]).astype(float).ravel() for side in (0, 1))
        clusters = [str(i) for i in range(groups) for _ in range(samples)]
        change = after - before
        rejected += s.sign_flip(list(change), clusters, permutations=999) <= 0.05
        low, high = s.paired_bootstrap(list(change), clusters, resamples=600)
        covered += low <= 0 <= high
        naive += s.mcnemar_exact(int((change > 0).sum()), int((change < 0).sum())) <= 0.05
    assert rejected / trials < 0.08
    assert covered / trials > 0.91
    assert naive / trials > 0.15  # McNemar over samples finds what is not there
