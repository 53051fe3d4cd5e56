"""Early stopping: the weights that did best on held-out rows, and an end when they have not been bettered for a while.

    every N steps: measure (higher is better) ─→ state["held_out"] ─┬─ the best so far ─→ best.safetensors
                                                                     └─ `patience` times in a row not better ─→ stop

What is remembered is in the loop's ``state``, saved with the weights. A killed run measures again what came after its last checkpoint,
finds the same and writes the same file (Prechelt 1998, "Early stopping — but when?", the criterion UP_s).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

BEST = "best.safetensors"


class EarlyStopping:
    """For ``until`` of :func:`norma.train.train`.

    Args:
        measure: how good the model is, in evaluation mode; higher is better. A pure function of its weights.
        every: steps between measurements.
        patience: measurements without a better one after which training ends; None: it never ends early, the best weights are kept.
        state: the dictionary that is given to ``train`` as ``state``.
        folder: where the best weights are kept meanwhile.
    """

    def __init__(
        self,
        model: nn.Module,
        measure: Callable[[], float],
        *,
        every: int,
        patience: int | None,
        state: dict[str, Any],
        folder: Path,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.model, self.measure, self.every, self.patience = model, measure, every, patience
        self.state, self.path, self.say = state, folder / BEST, say

    def __call__(self, step: int) -> bool:
        measured = self.state.setdefault("held_out", [])
        if step and step % self.every == 0 and (not measured or measured[-1][0] < step):
            self._measure(step)
        return self._over()

    def finish(self, step: int) -> tuple[int, float]:
        """Measure the last weights too, if that is not done yet; put the best ones into the model. Returns their step and value."""
        measured = self.state.setdefault("held_out", [])
        if not measured or (measured[-1][0] < step and not self._over()):
            self._measure(step)
        best = self._best()
        weights = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, tensor in load_file(self.path).items():
                weights[name].copy_(tensor)
        return int(measured[best][0]), float(measured[best][1])

    def remove(self) -> None:
        """Drop the kept weights: the model folder has been written."""
        self.path.unlink(missing_ok=True)

    def _measure(self, step: int) -> None:
        training = self.model.training
        self.model.eval()
        with torch.no_grad():
            value = float(self.measure())
        self.model.train(training)
        self.state["held_out"].append([step, value])
        better = self._best() == len(self.state["held_out"]) - 1
        self.say(f"after step {step}: {value:.4f} on held-out rows" + (", the best so far" if better else ""))
        if better:
            learning = {n: p.detach().cpu().contiguous() for n, p in self.model.named_parameters() if p.requires_grad}
            temporary = self.path.with_name(f".{BEST}")
            save_file(learning, temporary)
            temporary.replace(self.path)

    def _best(self) -> int:
        """The number of the first of the highest values."""
        values = [value for _, value in self.state["held_out"]]
        return values.index(max(values))

    def _over(self) -> bool:
        measured = self.state["held_out"]
        return self.patience is not None and bool(measured) and len(measured) - 1 - self._best() >= self.patience
