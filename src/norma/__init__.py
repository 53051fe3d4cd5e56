"""Norma trains language models to a written spec.

    spec = norma.Spec.load("spec.yaml")              one file of rules
    model = norma.load("runs/courteous-docs/reward") tokenizer + Transformer
    norma.run("recipe.yaml")                         the whole pipeline

Importing ``norma`` or ``norma.spec`` loads no torch: names are resolved when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from norma.base.errors import NormaError as NormaError
    from norma.generate import load as load
    from norma.pipeline import run as run
    from norma.spec import Spec as Spec

__version__ = "0.1.0"

_HOMES = {"Spec": "norma.spec", "load": "norma.generate", "run": "norma.pipeline", "NormaError": "norma.base.errors"}
__all__ = ["NormaError", "Spec", "load", "run"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'norma' has no attribute '{name}'")
