"""Parameters of a classifier from marked answers: a temperature, a threshold, and how wide a zone it must leave to people.

    logits (n, labels), kept (n,) ─→ temperature that makes the marks likeliest ─→ p ─→ threshold ─→ zone

Pure functions; calibrate on answers that are not used to measure the classifier afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from norma.base.errors import NormaError

Floats = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Calibration:
    """What goes into a classifier's ``params``; ``abstained``: the share of the marked answers that falls into the zone."""

    temperature: float
    threshold: float
    abstain: float
    abstained: float


def calibrate(logits: npt.ArrayLike, kept: npt.ArrayLike, label: int, *, most_wrong: float = 0.05) -> Calibration:
    """Fit all three. ``most_wrong``: largest share of wrong verdicts that may be left outside the zone."""
    scores, marks = np.asarray(logits, dtype=np.float64), np.asarray(kept, dtype=bool)
    if scores.ndim != 2 or len(scores) != len(marks) or marks.all() or not marks.any():
        raise NormaError("calibration needs marked answers of both kinds", mend="Mark some that keep the rule and some that break it")
    temperature = fit_temperature(scores, marks, label)
    p = np.exp(log_probability(scores / temperature, label))
    threshold = fit_threshold(p, marks)
    abstain = fit_abstention(p, marks, threshold, most_wrong)
    return Calibration(temperature, threshold, abstain, float((np.abs(p - threshold) < abstain).mean()))


def log_probability(scores: Floats, label: int) -> Floats:
    """log P(label) of each row of logits (n, labels)."""
    out: Floats = scores[:, label] - logsumexp(scores, axis=1)
    return out


def fit_temperature(scores: Floats, marks: Marks, label: int) -> float:
    """The temperature that makes the marks likeliest (Guo et al. 2017, 4.2), between .01 and 100."""

    def loss(log_temperature: float) -> float:
        yes = log_probability(scores / np.exp(log_temperature), label)
        no = np.log(-np.expm1(np.minimum(yes, -1e-12)))
        return float(-np.where(marks, yes, no).mean())

    found = minimize_scalar(loss, bounds=(np.log(0.01), np.log(100.0)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def fit_threshold(p: Floats, marks: Marks) -> float:
    """The threshold with the best balanced accuracy: midway between two neighbouring probabilities; the one nearest .5 of equals."""
    values = np.unique(p)
    between = np.unique(np.clip(np.r_[0.5, (values[1:] + values[:-1]) / 2], 1e-6, 1 - 1e-6))
    accuracy = np.array([((p >= t)[marks].mean() + (p < t)[~marks].mean()) / 2 for t in between])
    best = between[accuracy >= accuracy.max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])


def fit_abstention(p: Floats, marks: Marks, threshold: float, most_wrong: float) -> float:
    """The smallest half-width outside which at most ``most_wrong`` of the verdicts are wrong; 0 when that holds already."""
    distance = np.abs(p - threshold)
    wrong = (p >= threshold) != marks
    for width in np.r_[0.0, np.nextafter(np.unique(distance), 1.0)]:
        outside = distance >= width
        if not outside.any() or wrong[outside].mean() <= most_wrong:
            return float(width)
    return float(distance.max())
