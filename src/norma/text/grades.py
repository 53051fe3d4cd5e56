"""Grades of text in its token shards: the four high bits of a token's flags say how well its sentence or document keeps the norms.

    reward R in [0, 1] ─→ 1 + round(14 R) in the high bits        0: nobody has graded it (or a checker could not say)
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

STEPS = 14
_SHIFT = 4
_LOW = np.uint8(0x0F)

Flags = npt.NDArray[np.uint8]


def with_grade(flags: Flags, reward: float | None) -> Flags:
    """Flags of the tokens of a unit whose reward is ``reward``; None or NaN: not graded. Raises ValueError outside [0, 1]."""
    known = reward is not None and not math.isnan(reward)
    if known and not 0 <= float(reward or 0.0) <= 1:
        raise ValueError(f"a reward is 0 to 1, not {reward}")
    grade = 1 + round(STEPS * float(reward or 0.0)) if known else 0
    return (flags & _LOW) | np.uint8(grade << _SHIFT)


def rewards_of(flags: Flags) -> npt.NDArray[np.float32]:
    """The rewards, of the shape of ``flags``, to a fourteenth; NaN where nothing is graded."""
    grades = (flags >> _SHIFT).astype(np.float32)
    return np.where(grades > 0, (grades - 1) / STEPS, np.nan).astype(np.float32)
