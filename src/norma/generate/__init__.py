"""Floor 3: how a model writes. Prompts → batched sampling with a key/value cache → completions; beam search; answers of a server."""

from __future__ import annotations

from pathlib import Path

from norma.generate.beam import beam_search
from norma.generate.engine import LocalEngine, Rollouts, generate, writer
from norma.generate.remote import EndpointEngine
from norma.generate.sampling import Completion, Sampling
from norma.lm import LanguageModel

__all__ = ["Completion", "EndpointEngine", "LocalEngine", "Rollouts", "Sampling", "beam_search", "generate", "load", "writer"]


def load(folder: str | Path) -> LanguageModel:
    """Open a model folder, ready to chat and generate."""
    model = LanguageModel.load(folder)
    model.engine = LocalEngine()
    return model
