"""Dawid and Skene (1979): what is true of each item, and how each annotator errs, estimated together from marks alone.

    marks ─→ shares of votes ─→ [M: class rates and confusion matrices ─→ E: classes of the items] until the likelihood stands still

J. R. Statist. Soc. C 28(1), 20-28; equations 2.3 (confusion matrices), 2.4 (class rates), 2.5 (classes), 2.7 (likelihood), 3.1 (start).
Letters: N items, J annotators, K classes. An annotator may mark an item more than once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.special import logsumexp

from norma.labels.agreement import Floats


@dataclass(frozen=True)
class Consensus:
    """The estimate.

    Attributes:
        classes: (N, K) probability of each class for each item.
        prevalence: (K,) rate of each class.
        confusion: (J, K, K) probability that annotator j marks an item of class k (row) as l (column).
        log_likelihood: of the marks, in nats.
        iterations: EM steps made.
        converged: False when the steps ran out first.
    """

    classes: Floats
    prevalence: Floats
    confusion: Floats
    log_likelihood: float
    iterations: int
    converged: bool


def dawid_skene(
    items: ArrayLike,
    annotators: ArrayLike,
    marks: ArrayLike,
    classes: int,
    *,
    smoothing: float = 0.0,
    starts: int = 1,
    seed: int = 0,
    tolerance: float = 1e-9,
    max_iterations: int = 2000,
) -> Consensus:
    """EM from the shares of votes, as in the paper.

    Args:
        items: (M,) item numbers from 0; every item has a mark.
        annotators: (M,) annotator numbers from 0.
        marks: (M,) class numbers.
        classes: K.
        smoothing: marks added to each cell of a confusion matrix (0: maximum likelihood; with few marks an annotator, 0 says certain
            where it knows little).
        starts: further starts are shares of votes mixed with seeded Dirichlet noise; the highest likelihood wins.
        tolerance: the change of the objective per mark, in nats, that counts as standing still.
    """
    item, annotator, mark = (np.asarray(a, dtype=np.int64) for a in (items, annotators, marks))
    if not len(item) == len(annotator) == len(mark) > 0:
        raise ValueError("items, annotators and marks are three lists of one length")
    if mark.min() < 0 or mark.max() >= classes:
        raise ValueError(f"marks are numbers from 0 to {classes - 1}")
    n, j = int(item.max()) + 1, int(annotator.max()) + 1
    votes = csr_matrix((np.ones(len(mark)), (item, mark)), shape=(n, classes)).toarray()
    if (votes.sum(axis=1) == 0).any():
        raise ValueError("every item needs a mark")
    shares = votes / votes.sum(axis=1, keepdims=True)
    seen = csr_matrix((np.ones(len(mark)), (item, annotator * classes + mark)), shape=(n, j * classes))
    random = np.random.Generator(np.random.Philox(seed))
    best: Consensus | None = None
    for start in range(max(1, starts)):
        first = shares if start == 0 else (shares + random.dirichlet(np.ones(classes), size=n)) / 2
        found = _run(seen, first, j, smoothing, tolerance * len(mark), max_iterations)
        if best is None or found.log_likelihood > best.log_likelihood + 1e-9:
            best = found
    assert best is not None
    return best


def _run(seen: csr_matrix, start: Floats, annotators: int, smoothing: float, tolerance: float, max_iterations: int) -> Consensus:
    truth, before, converged, iteration = start, -np.inf, False, 0
    while iteration < max_iterations and not converged:
        iteration += 1
        prevalence, confusion = _rates(seen, truth, annotators, smoothing)
        with np.errstate(divide="ignore"):
            log_confusion, log_prevalence = np.log(confusion), np.log(prevalence)
        joint = log_prevalence + _times(seen, log_confusion)
        evidence = logsumexp(joint, axis=1, keepdims=True)
        truth = np.exp(joint - evidence)
        likelihood = float(evidence.sum())
        # With smoothing, EM climbs the likelihood plus the prior's logarithm.
        objective = likelihood + (smoothing * float(log_confusion.sum()) if smoothing else 0.0)
        converged = objective - before <= tolerance
        before = objective
    return Consensus(truth, prevalence, confusion, likelihood, iteration, converged)


def _rates(seen: csr_matrix, truth: Floats, annotators: int, smoothing: float) -> tuple[Floats, Floats]:
    """The M step. A class that no item of an annotator has says nothing of that annotator: an even row, which no evidence ever meets."""
    classes = truth.shape[1]
    counts = (seen.T @ truth).reshape(annotators, classes, classes).transpose(0, 2, 1) + smoothing
    totals = counts.sum(axis=2, keepdims=True)
    confusion = np.divide(counts, totals, out=np.full_like(counts, 1 / classes), where=totals > 0)
    return truth.mean(axis=0), confusion


def _times(seen: csr_matrix, log_confusion: Floats) -> Floats:
    """(N, K) the sum over an item's marks of their log-probabilities in each class. A factor of zero is -inf, never 0 x -inf."""
    annotators, classes, _ = log_confusion.shape
    table = log_confusion.transpose(0, 2, 1).reshape(annotators * classes, classes)
    finite = np.where(np.isneginf(table), 0.0, table)
    out: NDArray[np.float64] = np.asarray(seen @ finite)
    impossible = np.asarray(seen @ np.isneginf(table).astype(np.float64)) > 0
    return np.where(impossible, -np.inf, out)
