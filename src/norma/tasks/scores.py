"""How good predictions of labels are, and how far their probabilities can be believed: pure functions over scikit-learn's metrics.

    labels, predicted ─→ accuracy, F1 of each label, their mean (macro), the confusion matrix, bootstrap intervals
    logits, labels    ─→ the temperature that makes the labels likeliest ─→ expected calibration error before and after

Rows are drawn again in whole clusters (the source of a row), as everywhere in Norma.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from norma.base.errors import NormaError

Floats = npt.NDArray[np.float64]
RESAMPLES = 1000
BINS = 15  # of confidence, as in Guo et al.


def metrics() -> Any:
    """scikit-learn's metrics. Raises NormaError where it is not installed."""
    try:
        from sklearn import metrics as found
    except ImportError:
        raise NormaError("measuring tasks needs scikit-learn", mend="pip install 'norma-lm[tasks]'") from None
    return found


def label_scores(labels: Sequence[int], predicted: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """F1 of each label and their mean, balanced accuracy, Matthews' correlation, the confusion matrix (rows: what people said)."""
    found, every = metrics(), list(range(len(names)))
    precision, recall, f1, support = found.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0.0)
    there = [i for i in every if support[i]]
    return {
        "macro_f1": float(np.mean(f1[there])),
        "balanced_accuracy": float(np.mean(recall[there])),
        "matthews": float(found.matthews_corrcoef(labels, predicted)),
        "labels": [
            {"label": names[i], "precision": float(precision[i]), "recall": float(recall[i]), "f1": float(f1[i]), "n": int(support[i])}
            for i in every
        ],
        "confusion": found.confusion_matrix(labels, predicted, labels=every).tolist(),
    }


def macro_f1(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> float:
    """The mean F1, 2 TP / (2 TP + FP + FN), of the labels that occur. As scikit-learn's, a hundred times as fast: the bootstrap's share."""
    size = int(max(labels.max(), predicted.max())) + 1
    given, said = np.bincount(labels, minlength=size), np.bincount(predicted, minlength=size)
    right = np.bincount(labels[labels == predicted], minlength=size)
    return float(np.mean((2 * right / np.maximum(given + said, 1))[given > 0]))


def entity_scores(labels: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Entities as CoNLL-2003 counts them (Tjong Kim Sang and De Meulder 2003), by seqeval: right if type and both ends are.

    Empty where the labels are no BIO tags.
    """
    if not any(label[:2] in ("B-", "I-") for row in labels for label in row):
        return {}
    try:
        from seqeval.metrics import f1_score, precision_score, recall_score
    except ImportError:
        raise NormaError("entities are counted with seqeval", mend="pip install 'norma-lm[tasks]'") from None
    given, said = [list(row) for row in labels], [list(row) for row in predicted]
    counts = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    return {f"entity_{name}": float(count(given, said, zero_division=0)) for name, count in counts.items()}


def bootstrap(
    statistic: Callable[[npt.NDArray[np.int64]], float], clusters: Sequence[str], *, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """A percentile interval (95%) of a statistic that is no mean; ``statistic`` is given the numbers of the rows drawn.

    Whole clusters are drawn with replacement (Davison and Hinkley 1997, section 3.8).
    """
    members: dict[str, list[int]] = {}
    for i, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(i)
    groups = [np.array(m, dtype=np.int64) for m in members.values()]
    random = np.random.default_rng(seed)
    drawn = (random.integers(0, len(groups), len(groups)) for _ in range(resamples))
    values = [statistic(np.concatenate([groups[i] for i in draw])) for draw in drawn]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def probabilities(logits_NL: Floats, temperature: float = 1.0) -> Floats:
    """(N, L) softmax of the logits over the temperature."""
    out: Floats = np.exp(log_softmax(logits_NL / temperature, axis=1))
    return out


def fit_temperature(logits_NL: Floats, labels: Sequence[int]) -> float:
    """The temperature that makes the labels likeliest (Guo et al., 1706.04599, section 4.2), between .05 and 20."""
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits_NL / np.exp(log_temperature), axis=1)[rows, labels].mean())

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def calibration_error(p_NL: Floats, labels: Sequence[int], bins: int = BINS) -> float:
    """Expected calibration error: sum over bins of confidence of n_b / n |accuracy_b - confidence_b| (1706.04599, eq. 3)."""
    confidence, right = p_NL.max(axis=1), p_NL.argmax(axis=1) == np.asarray(labels)
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = [abs(float(right[which == b].mean()) - float(confidence[which == b].mean())) * int((which == b).sum()) for b in np.unique(which)]
    return float(sum(gaps) / len(confidence))


def reliability(p_NL: Floats, labels: Sequence[int], bins: int = 10) -> list[dict[str, float]]:
    """What stands behind a reliability diagram: of each bin of confidence its rows, mean confidence and accuracy."""
    confidence, right = p_NL.max(axis=1), p_NL.argmax(axis=1) == np.asarray(labels)
    which = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return [
        {"n": int((which == b).sum()), "confidence": float(confidence[which == b].mean()), "accuracy": float(right[which == b].mean())}
        for b in np.unique(which)
    ]


def folds(labels: Sequence[str], count: int, seed: int) -> list[list[int]]:
    """``count`` sets of row numbers that hold each label alike (scikit-learn's StratifiedKFold), each to be held out once."""
    metrics()
    from sklearn.model_selection import StratifiedKFold

    rarest = min(labels.count(label) for label in set(labels))
    if rarest < count:
        raise NormaError(f"{count} folds need {count} rows of each label, one has {rarest}", mend="Take fewer folds")
    splitter = StratifiedKFold(count, shuffle=True, random_state=seed)
    return [held_out.tolist() for _, held_out in splitter.split(np.zeros(len(labels)), list(labels))]


def grouped_folds(groups: Sequence[str], count: int, seed: int) -> list[list[int]]:
    """``count`` sets of row numbers of about the same size, rows of one group (a text that several questions ask about) together."""
    members: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    if len(members) < count:
        raise NormaError(f"{count} folds need {count} different texts, there are {len(members)}", mend="Take fewer folds")
    drawn = np.random.default_rng(seed).permutation(len(members))
    found: list[list[int]] = [[] for _ in range(count)]
    for own in sorted((list(members.values())[i] for i in drawn), key=len, reverse=True):  # the largest first, into the smallest
        min(found, key=len).extend(own)
    return [sorted(fold) for fold in found]
