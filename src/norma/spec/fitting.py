"""Weights of rules from answers that people have put in order: the fitted reward of Rule-Based Rewards (Mu et al. 2024, 2411.01111).

    pairs (better, worse) ─scores of the rules─→ differences d (P, R) ─→ split by prompt ─┬─ learn ─→ w
                                                                                          └─ held out ─→ share in the right order

    w = argmin over w >= 0 of   mean_i max(0, margin - w . d_i)  +  ridge / 2 |w - w0|^2

w0 are the spec's own weights: what the pairs say nothing of stays as its author wrote it. The problem is strictly convex, so the answer
is one, whatever the solver. Letters: P pairs, R rules.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
STEPS = 20_000  # of the subgradient method; the error falls as 1 / steps


@dataclass(frozen=True)
class Fit:
    """Fitted weights, and on pairs of prompts that were not learnt from: which are put in the right order by them and by the spec's own.

    A tie counts half.
    """

    weights: Floats  # (R,), their mean is that of the spec's own
    learnt: int  # pairs
    held: NDArray[np.intp]  # places of the held-out pairs
    right: Floats  # one number for each of them: 1, 0.5 or 0
    right_before: Floats


def hinge_weights(differences: ArrayLike, declared: ArrayLike, *, margin: float, ridge: float) -> Floats:
    """(R,) the minimum above, by projected subgradient steps 1 / (ridge t) and an average that favours late ones (1212.2002).

    Args:
        differences: (P, R) score of the better answer less that of the worse one, each in [-1, 1]; 0 where a rule does not apply.
        declared: (R,) w0.
        margin: how much more the better answer should get.
        ridge: strength of the pull to w0, above 0.
    """
    d, start = np.asarray(differences, dtype=np.float64), np.asarray(declared, dtype=np.float64)
    if ridge <= 0 or margin <= 0:
        raise ValueError("margin and ridge must be above 0")
    w, mean = start.copy(), start.copy()
    if not len(d):
        return w
    for t in range(1, STEPS + 1):
        short = d @ w < margin
        slope = ridge * (w - start) - d[short].sum(axis=0) / len(d)
        w = np.maximum(0.0, w - slope / (ridge * (t + 1)))
        mean += (w - mean) * 2 / (t + 1)
    return mean


def in_order(differences: ArrayLike, weights: ArrayLike) -> Floats:
    """(P,) 1 where the better answer gets more by these weights, 0.5 at a tie, else 0."""
    gain = np.asarray(differences, dtype=np.float64) @ np.asarray(weights, dtype=np.float64)
    gain[np.abs(gain) < 1e-9] = 0.0
    return (np.sign(gain) + 1) / 2


def split(prompts: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """(P,) which pairs are held out: about ``share`` of the different prompts, all pairs of a prompt on one side."""
    different = sorted(set(prompts))
    random.Random(seed).shuffle(different)
    held = set(different[: round(share * len(different))])
    return np.array([prompt in held for prompt in prompts], dtype=bool)


def fit(
    differences: ArrayLike,
    prompts: Sequence[str],
    declared: ArrayLike,
    *,
    margin: float = 0.5,
    ridge: float = 0.1,
    share: float = 0.3,
    seed: int = 0,
) -> Fit:
    """Learn on some prompts, look at the others. ``prompts``: (P,) what each pair answers."""
    d, start = np.asarray(differences, dtype=np.float64), np.asarray(declared, dtype=np.float64)
    held = split(prompts, share, seed)
    weights = hinge_weights(d[~held], start, margin=margin, ridge=ridge)
    # R is a weighted mean: only proportions count, and people compare them with what stood there.
    scaled = weights * (start.mean() / weights.mean()) if weights.any() and start.any() else weights
    return Fit(scaled, int((~held).sum()), np.flatnonzero(held), in_order(d[held], weights), in_order(d[held], start))
