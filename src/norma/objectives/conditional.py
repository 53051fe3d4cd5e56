"""Norms in pretraining: text that was graded by a spec is learnt according to its grade.

    grades of sentences ─┬→ filtering        what breaks a norm is not read                              (a data stage)
                         ├→ control tokens   <|good|> or <|bad|> stands before each sentence             (a data stage)
                         ├→ unlikelihood     bad tokens are made less likely         weight -alpha ─┐
                         └→ weighting        good tokens count more     weight exp((R - 1) / beta) ─┴→ sum of weighted losses

"Pretraining language models with human preferences" (Korbak et al., 2302.08582, section 2: conditional training, dataset filtering,
unlikelihood, reward-weighted regression). Its loss of a token with weight w is

    w > 0   -w log p(token)                    w < 0   -|w| log(1 - p(token))   (Welleck et al., 1908.04319, eq. 4)

see :func:`norma.objectives.likelihood.cross_entropy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ByGrade:
    """How grades weigh on the loss.

    Args:
        how: ``unlikelihood`` or ``weighted``.
        threshold: a reward below it is bad (unlikelihood).
        alpha: weight of unlikelihood; 1 in Welleck et al., Korbak et al. tune it for each task.
        beta: temperature of the weights; the smaller, the less is left of what breaks a norm.
    """

    how: Literal["unlikelihood", "weighted"]
    threshold: float = 0.5
    alpha: float = 1.0
    beta: float = 0.5

    def __post_init__(self) -> None:
        if not (0 <= self.threshold <= 1 and self.alpha >= 0 and self.beta > 0):
            raise ValueError(f"0 <= threshold <= 1, alpha >= 0 and beta > 0 are needed, not {self}")


def grade_weights(rewards: Floats, by: ByGrade) -> Floats:
    """Weights of tokens, of the shape of ``rewards``; 1 where nothing is graded (NaN).

    The paper's exp(R / beta) has a free scale, which the optimisers' normalisation takes out: here the best reward weighs 1.
    """
    graded = ~np.isnan(rewards)
    if by.how == "unlikelihood":
        weights = np.where(rewards < by.threshold, -by.alpha, 1.0)
    else:
        weights = np.exp((rewards - 1.0) / by.beta)
    return np.where(graded, weights, 1.0).astype(np.float32)


def controlled(
    units: Sequence[tuple[Ints, float | None]], random: np.random.Generator, *, good: int, bad: int, threshold: float, dropped: float
) -> list[Ints]:
    """The units (sentences) of a document, each behind its control token (2302.08582, section 2.2).

    Control tokens are learnt as all others are: a model then writes one before each sentence, and with <|bad|> forbidden it is <|good|>.

    Args:
        units: token ids, and reward or None: what is not graded gets no control token.
        dropped: the share of the control tokens that are left out, so that text without any is known too; 0.01 in the paper.
    """
    out = []
    for ids, reward in units:
        kept = random.random() >= dropped
        head = [] if reward is None or not kept else [good if reward >= threshold else bad]
        out.append(np.concatenate([np.array(head, dtype=ids.dtype), ids]))
    return out
