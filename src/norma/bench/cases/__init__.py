"""The parity cases, one module per file of ``norma.nn.families``; each exports ``CASES``."""

from __future__ import annotations

import importlib
import pkgutil

from norma.bench.parity import Case


def all_cases() -> list[Case]:
    """Every case, in the order of the modules' names."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [case for name in modules for case in importlib.import_module(f"{__name__}.{name}").CASES]
