"""Floor 3: how a model writes. Prompts → batched sampling with a key/value cache → completions."""

from __future__ import annotations

from pathlib import Path

from norma.generate.engine import LocalEngine, generate
from norma.generate.sampling import Completion, Sampling
from norma.lm import LanguageModel

__all__ = ["Completion", "LocalEngine", "Sampling", "generate", "load"]


def load(folder: str | Path) -> LanguageModel:
    """Open a model folder, ready to chat and generate."""
    model = LanguageModel.load(folder)
    model.engine = LocalEngine()
    return model
