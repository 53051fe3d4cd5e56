"""Metrics: beside scikit-learn, by hand, temperatures that are known, folds."""

from __future__ import annotations

import numpy as np
import pytest

from norma.base.errors import NormaError
from norma.tasks.scores import (
    bootstrap,
    calibration_error,
    entity_scores,
    fit_temperature,
    folds,
    grouped_folds,
    label_scores,
    macro_f1,
    probabilities,
)

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="pip install 'norma-lm[tasks]'")


def test_macro_f1_equals_scikit_learns() -> None:
    random = np.random.default_rng(0)
    for n in (1, 5, 60):
        labels, said = random.integers(0, 4, n), random.integers(0, 5, n)
        theirs = sklearn_metrics.f1_score(labels, said, labels=np.unique(labels), average="macro", zero_division=0.0)
        assert macro_f1(labels, said) == pytest.approx(theirs)
        assert label_scores(labels.tolist(), said.tolist(), list("abcde"))["macro_f1"] == pytest.approx(theirs)


def test_scores_by_hand() -> None:
    """a: 2 of 3 right, b: 1 of 1 right but said twice: F1 a = 4/5, F1 b = 2/3, mean 11/15."""
    found = label_scores([0, 0, 0, 1], [0, 0, 1, 1], ["a", "b"])
    assert found["confusion"] == [[2, 1], [0, 1]] and found["macro_f1"] == pytest.approx(11 / 15)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2) and found["labels"][1]["n"] == 1


def test_calibration_error_by_hand() -> None:
    """Four rows at .9, three of them right: |.75 - .9| = .15; one at .6, right: .4. (4 x .15 + .4) / 5 = .2."""
    p = np.array([[0.9, 0.1]] * 4 + [[0.6, 0.4]])
    assert calibration_error(p, [0, 0, 0, 1, 0]) == pytest.approx(0.2)


def test_a_known_temperature_is_found() -> None:
    """Labels are drawn from softmax(z); the model says 3 z: it is three times as sure as it may be."""
    random = np.random.default_rng(1)
    z = random.normal(0, 1.5, (20000, 3))
    p = probabilities(z)
    labels = [int(random.choice(3, p=row)) for row in p]
    temperature = fit_temperature(3 * z, labels)
    assert temperature == pytest.approx(3.0, rel=0.05)
    assert calibration_error(probabilities(3 * z, temperature), labels) < 0.02 < 0.1 < calibration_error(probabilities(3 * z), labels)


def test_bootstrap_of_a_mean_is_its_binomial_interval() -> None:
    values = np.array([1.0] * 80 + [0.0] * 20)
    low, high = bootstrap(lambda drawn: float(values[drawn].mean()), [str(i) for i in range(100)], seed=0)
    assert low == pytest.approx(0.8 - 1.96 * 0.04, abs=0.012) and high == pytest.approx(0.8 + 1.96 * 0.04, abs=0.012)
    # Ten clusters of ten equal rows: as uncertain as ten rows.
    wide = bootstrap(lambda drawn: float(values[drawn].mean()), [str(i // 10) for i in range(100)], seed=0)
    assert wide[1] - wide[0] > 2 * (high - low)
    assert bootstrap(lambda drawn: float(values[drawn].mean()), [str(i) for i in range(100)], seed=0) == (low, high)


def test_entities_need_type_and_both_ends() -> None:
    pytest.importorskip("seqeval")
    labels = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG"]]
    said = [["B-PER", "O", "O", "B-LOC"], ["O", "B-ORG"]]
    assert entity_scores(labels, said)["entity_f1"] == pytest.approx(2 / 3)  # 2 of 3 said, 2 of 3 given
    assert entity_scores([["NOUN", "VERB"]], [["NOUN", "NOUN"]]) == {}


def test_folds_hold_out_each_row_once_and_each_label_alike() -> None:
    labels = ["a"] * 9 + ["b"] * 6
    parts = folds(labels, 3, seed=4)
    assert sorted(i for part in parts for i in part) == list(range(15))
    assert all(sum(labels[i] == "a" for i in part) == 3 for part in parts) and parts == folds(labels, 3, seed=4)
    with pytest.raises(NormaError, match="7 folds need 7 rows of each label, one has 6"):
        folds(labels, 7, seed=0)


def test_folds_of_groups_hold_out_whole_groups() -> None:
    groups = [f"text {i % 7}" for i in range(30)] + ["alone"]
    parts = grouped_folds(groups, 4, seed=2)
    assert sorted(i for part in parts for i in part) == list(range(31)) and parts == grouped_folds(groups, 4, seed=2)
    assert all(not {groups[i] for i in one} & {groups[i] for i in other} for one in parts for other in parts if one is not other)
    assert max(map(len, parts)) - min(map(len, parts)) <= 5, "no further apart than one group"
    assert parts != grouped_folds(groups, 4, seed=3)
    with pytest.raises(NormaError, match="9 folds need 9 different texts, there are 8"):
        grouped_folds(groups, 9, seed=0)
