"""Floor 3: the loop, optimisers and schedules, checkpoints with exact resume.

losses(step) ─→ backward ─→ clip ─→ guard ─→ optimisers, average ─→ metrics.jsonl, samples.jsonl, sinks
                                      │                └─→ checkpoint-N/ (safetensors + manifest): a killed run goes on bit-identical
                                      └─→ a spike, NaN: stop, skip, or back to a checkpoint
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from norma.train.loop import Losses as Losses
    from norma.train.loop import train as train
    from norma.train.options import TrainOptions as TrainOptions

# Lazy, because recipes are checked (TrainOptions) without loading torch.
_HOMES = {"Losses": "norma.train.loop", "train": "norma.train.loop", "TrainOptions": "norma.train.options"}
__all__ = ["Losses", "TrainOptions", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'norma.train' has no attribute '{name}'")
