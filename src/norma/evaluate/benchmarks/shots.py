"""Few-shot prompts: examples with their answers before the question (Brown et al., 2005.14165, section 2).

    question + K training rows, drawn for it by seed ─→ example, example, ..., question     as many as the model's context holds

Examples are drawn from the training rows only, and a training row that also stands among the test rows is never one.
Contextual calibration (Zhao et al., 2102.09690): what a model says of no content at all is divided out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from norma.base.random import keyed
from norma.evaluate.benchmarks.rows import Example

CONTENT_FREE = ("N/A", "[MASK]", "")  # 2102.09690, section 4: their probabilities are averaged


@dataclass(frozen=True)
class Prompt:
    """What is sent. ``shots`` may be fewer than asked for, where the context is too short; ``cut``: the question itself did not fit."""

    text: str
    shots: int
    before: str
    cut: bool = False


def usable(train: Sequence[Example], test: Sequence[Example]) -> list[Example]:
    """Training rows that may be examples: none that is also asked."""
    asked = {e.prompt for e in test}
    return [e for e in train if e.prompt not in asked]


def draw(train: Sequence[Example], example: Example, shots: int, seed: int) -> list[Example]:
    """``shots`` training rows for one question; which, follows from the seed and the question alone."""
    if not shots:
        return []
    if shots > len(train):
        from norma.base.errors import NormaError

        raise NormaError(f"{shots} examples are asked for, and there are {len(train)} training rows")
    order = keyed(seed, 0, use=f"shots {example.id}").choice(len(train), size=shots, replace=False)
    return [train[i] for i in order.tolist()]


def prompt_of(example: Example, chosen: Sequence[Example], separator: str, fits: Callable[[str], bool]) -> Prompt:
    """The longest prompt that fits: examples are left out from the front. Where not even the question fits, it is sent as it is."""
    for kept in range(len(chosen), -1, -1):
        before = "".join(e.shown + separator for e in chosen[len(chosen) - kept :])
        if fits(before + example.prompt):
            return Prompt(before + example.prompt, kept, before)
    return Prompt(example.prompt, 0, "", cut=True)


def calibrated(nats_C: Sequence[float], free_FC: Sequence[Sequence[float]]) -> npt.NDArray[np.float64]:
    """(C,) probabilities of the choices over those without content, and normalised (2102.09690, section 4: W = diag(p_cf)^-1, b = 0).

    Args:
        nats_C: -log p of each choice behind the question.
        free_FC: the same behind each content-free question.
    """
    p = _share(np.asarray(nats_C, dtype=np.float64))
    free = np.mean([_share(np.asarray(row, dtype=np.float64)) for row in free_FC], axis=0)
    weighed = p / np.maximum(free, 1e-12)
    out: npt.NDArray[np.float64] = weighed / weighed.sum()
    return out


def _share(nats: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    p = np.exp(nats.min() - nats)
    out: npt.NDArray[np.float64] = p / p.sum()
    return out
