"""Families and their published sizes by name.

    preset("llama", width=..., layers=..., ...) ─→ ModelConfig      a family in sizes of your own
    published("gpt2-medium")                    ─→ ModelConfig      a model as its paper has it: FAMILY, or FAMILY-SIZE
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from norma.base.errors import NormaError, nearest
from norma.nn.config import ModelConfig
from norma.nn.families import FAMILIES, Family


def preset(name: str, **sizes: Any) -> ModelConfig:
    """The config of a family by name. Unknown names and sizes that do not fit are errors that say so."""
    if name not in FAMILIES:
        raise NormaError(f"unknown model preset '{name}'", mend=nearest(name, FAMILIES))
    family = FAMILIES[name]
    made = _bound(family, sizes)
    width, head_size = made["width"], made.get("head_size")
    if head_size and made.get("attention_heads") is None and width % head_size:
        raise NormaError(f"width {width} is not a multiple of head_size {head_size}", mend="Choose a multiple")
    return _made(family, sizes)


def published(name: str) -> ModelConfig:
    """The config of a published model, such as ``gpt2``, ``gpt2-medium`` or ``llama-7b``; a family's name alone means its first size.

    Raises NormaError with the nearest name when there is none of this one.
    """
    family, size = find(name)
    return _made(family, family.sizes[size])


def find(name: str) -> tuple[Family, str]:
    """The family and the size that ``name`` stands for. Raises NormaError with the nearest name."""
    models = names()
    if name not in models:
        close = difflib.get_close_matches(name, models, n=1, cutoff=0.6)
        raise NormaError(f"unknown model '{name}'", mend=nearest(name, close or FAMILIES))
    return models[name]


def names() -> dict[str, tuple[Family, str]]:
    """Every name that :func:`published` knows → its family and size."""
    found: dict[str, tuple[Family, str]] = {}
    for family in FAMILIES.values():
        for size in family.sizes:
            found.setdefault(family.name, (family, size))
            found[f"{family.name}-{size}"] = family, size
    return found


def _bound(family: Family, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """``sizes`` with the preset's defaults. Raises NormaError for an argument that it does not have, or lacks."""
    try:
        bound = inspect.signature(family.preset).bind(**sizes)
    except TypeError as error:
        known = inspect.signature(family.preset).parameters
        raise NormaError(f"preset '{family.name}': {error}", mend=f"It takes {', '.join(known)}") from None
    bound.apply_defaults()
    return dict(bound.arguments)


def _made(family: Family, sizes: Mapping[str, Any]) -> ModelConfig:
    try:
        return family.preset(**sizes)
    except ValueError as error:
        raise NormaError(f"preset '{family.name}': {error}") from None
