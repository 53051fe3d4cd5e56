"""Steps that must not count: a loss or gradient that is not finite, and losses that leap.

    loss, gradient norm ─→ judge ─→ None: accept(loss) into the window of the last 50
                              └──→ why: offend(step, why) ─→ stop (NormaError) | skip | rollback
    next step ─→ passed(step): the offender for whose sake this step is left out, or None

The verdict on a step depends on the losses before it alone, and these are saved with the weights: a run that is killed and goes
on judges as the unbroken one does. Passing over a fixed number of steps, rather than all since the last checkpoint, keeps the
clock, which places the checkpoints, out of the result. That going back and leaving out some data helps is PaLM's finding
(2204.02311, section 5.1): the same batches did no harm from another checkpoint.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Any

from norma.base.errors import NormaError
from norma.train.options import TrainOptions

WINDOW = 50  # accepted losses that a new one is compared with
LEAST = 10  # accepted losses without which there is no verdict


def spike(loss: float, window: Sequence[float], *, factor: float | None, mads: float | None) -> str | None:
    """Why ``loss`` (any unit) leaps out of the accepted losses before it, or None.

    Args:
        factor: medians above which it is a spike; says nothing where the median is not positive.
        mads: median absolute deviations above the median; says nothing where more than half of the window is one value.
    """
    if len(window) < LEAST:
        return None
    middle = median(window)
    spread = median(abs(x - middle) for x in window)
    if factor is not None and middle > 0 and loss > factor * middle:
        return f"the loss {loss:.4g} is {loss / middle:.3g} times the median {middle:.4g} of the last {len(window)} steps"
    if mads is not None and spread > 0 and loss > middle + mads * spread:
        off = (loss - middle) / spread
        return f"the loss {loss:.4g} is {off:.3g} deviations above the median {middle:.4g} of the last {len(window)} steps"
    return None


class Guard:
    """Judges steps, and remembers which are left out."""

    def __init__(self, options: TrainOptions) -> None:
        self.options = options
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.offences: dict[int, str] = {}  # step -> why

    def judge(self, loss: float | None, gradient_norm: float) -> str | None:
        """Why the step must not count, or None. ``loss`` is None where the objective has no such number."""
        if loss is not None and not math.isfinite(loss):
            return f"the loss is not finite ({loss})"
        if not math.isfinite(gradient_norm):
            return f"the gradient is not finite ({gradient_norm})"
        if loss is None:
            return None
        return spike(loss, self.losses, factor=self.options.spike_factor, mads=self.options.spike_mads)

    def accept(self, loss: float | None) -> None:
        """Let a loss that counted into the window."""
        if loss is not None:
            self.losses.append(loss)

    def offend(self, step: int, why: str, where: object) -> None:
        """Take down an offence. Raises NormaError naming the step where the run must stop."""
        self.offences[step] = why
        row = 1
        while step - row in self.offences:
            row += 1
        if self.options.on_spike == "stop":
            mend = "Lower the learning rate, or let on_spike be skip or rollback; nothing was saved after it"
            raise NormaError(f"at step {step} {why}", where=where, mend=mend)
        if row > self.options.most_skips:
            mend = "Lower the learning rate, or look at the data of these steps"
            raise NormaError(f"{row} steps in a row had to be left out, up to step {step}, where {why}", where=where, mend=mend)

    @property
    def reach(self) -> int:
        """Steps that one offence leaves out, the offender last."""
        return self.options.pass_over if self.options.on_spike == "rollback" else 1

    def first(self, offender: int) -> int:
        """The first step that is left out for an offender's sake: the checkpoint to go back to must not lie after it."""
        return max(0, offender - self.reach + 1)

    def passed(self, step: int) -> int | None:
        """The offender for whose sake ``step`` is left out, or None."""
        return next((o for o in sorted(self.offences) if self.first(o) <= step <= o), None)

    def saved(self) -> dict[str, Any]:
        """JSON of all it knows."""
        return {"losses": list(self.losses), "offences": [[step, why] for step, why in sorted(self.offences.items())]}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go back to saved knowledge. Offences are never forgotten: those found since stay, that is what going back is for."""
        self.losses = deque(saved["losses"], maxlen=WINDOW)
        self.offences |= {int(step): str(why) for step, why in saved["offences"]}
