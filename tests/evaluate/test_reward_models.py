"""What is said of a reward model: by hand, and by slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from norma.evaluate.reward_models import calibration_error, mark_quality, pair_quality
from norma.evaluate.statistics import wilson


def test_pairs_by_hand() -> None:
    """Four pairs: two in order, one tie, one not; the longer answer is the better one in three."""
    found = pair_quality([2.0, 1.0, 0.0, -1.0], [1.0, 0.0, 0.0, 1.0], [(9, 3), (8, 3), (7, 3), (1, 3)], ["a", "b", "c", "d"])
    assert found["accuracy"]["rate"] == 2.5 / 4 and found["margin"] == 0.0 and found["n"] == 4
    assert found["length"]["accuracy"] == 0.75
    # differences 1 1 0 -2, of lengths 6 5 4 -2: ranks 3.5 3.5 2 1 and 4 3 2 1, whose correlation is 4.5 / sqrt(4.5 * 5)
    assert found["length"]["correlation"] == pytest.approx(4.5 / math.sqrt(22.5))


def test_the_interval_is_wilsons_and_counts_sources() -> None:
    right = [1.0] * 30 + [-1.0] * 10
    alone = pair_quality(right, [0.0] * 40, [(1, 2)] * 40, [str(i) for i in range(40)])["accuracy"]
    assert (alone["low"], alone["high"]) == pytest.approx(wilson(30, 40))
    together = pair_quality(right, [0.0] * 40, [(1, 2)] * 40, [str(i // 10) for i in range(40)])["accuracy"]
    assert together["rate"] == alone["rate"] and together["high"] - together["low"] > alone["high"] - alone["low"]


def test_calibration_error_by_hand() -> None:
    """Bins of a tenth: .95 twice, right once, is off by .45; .55 once and right by .45: (2 * .45 + .45) / 3."""
    assert calibration_error([0.95, 0.95, 0.55], [1, 0, 1]) == pytest.approx(0.45)
    assert calibration_error([1.0, 0.0], [1, 0]) == 0.0
    assert calibration_error([4.0, 2.0], [3.0, 2.5], 0.0, 4.0) == pytest.approx(0.75), "in the unit of the scores"
    random = np.random.default_rng(0)
    p = random.random(20000)
    assert calibration_error(p, random.random(20000) < p) < 0.01 < 0.1 < calibration_error(p**3, random.random(20000) < p)


def test_the_order_of_answers_by_a_loop() -> None:
    random = np.random.default_rng(1)
    y = random.integers(0, 5, 60).astype(float)
    r = y + random.normal(size=60) * 2
    r[:5] = r[0]  # ties
    found = mark_quality(r - 2, y >= 2, y, random.integers(5, 50, 60), [str(i) for i in range(60)], shift=2.0)
    right = pairs = 0.0
    for i in range(60):
        for j in range(60):
            if y[i] > y[j]:
                pairs += 1
                right += 1.0 if r[i] > r[j] else 0.5 if r[i] == r[j] else 0.0
    order = found["order"]
    assert order["rate"] == pytest.approx(right / pairs) and order["low"] < order["rate"] < order["high"]
    assert found["accuracy"]["rate"] == pytest.approx(np.mean((r > 2) == (y >= 2)))
    again = mark_quality(r - 2, y >= 2, y, random.integers(5, 50, 60), [str(i) for i in range(60)], shift=2.0)["order"]
    assert again == order, "resampling is seeded"


def test_the_interval_of_the_order_covers() -> None:
    """Normal scores and noise of the same size: in order are 1/2 + arcsin(1 / sqrt 2) / pi = 3/4 of the pairs (Sheppard 1899)."""
    random, inside = np.random.default_rng(2), 0
    for i in range(60):
        y = random.normal(size=80)
        order = mark_quality(y + random.normal(size=80), y > 0, y, [1] * 80, [str(k) for k in range(80)], seed=i)["order"]
        inside += order["low"] <= 0.75 <= order["high"]
    assert 50 <= inside <= 60


def test_what_does_not_vary_has_no_correlation() -> None:
    found = mark_quality([1.0, 1.0], [True, True], [1.0, 1.0], [3, 3], ["a", "b"])
    assert found["order"]["rate"] is None and found["score_correlation"] is None and found["length"] == {"correlation": None, "order": None}
