"""What there is to know about a published model before anything is built: ``norma doctor --model`` prints it.

    name ─→ published config ─→ facts(name): structure, weights, arithmetic, memory        fits(facts, bytes): what that leaves room for
"""

from __future__ import annotations

import inspect
from dataclasses import MISSING, asdict, fields
from typing import Any

from norma.nn.config import ModelConfig
from norma.nn.counting import training_bytes
from norma.nn.families import Family
from norma.nn.presets import find, published

FP32, BF16 = 4, 2  # bytes of a number


def facts(name: str) -> dict[str, Any]:
    """The facts of a published model, fit for JSON. Sizes are bytes. Raises NormaError for an unknown name.

    ``structure`` holds the sizes and every other field of the config that is not at its default. Arithmetic and cache are those of a text
    of ``length`` = ``max_positions`` tokens (a source as long beside it where there is an encoder in front), the cache in bf16.
    """
    family, _ = find(name)
    config = published(name)
    length, weights = config.max_positions, config.parameters()
    return {
        "model": name,
        "family": family.name,
        "paper": paper(family),
        "layout": family.architectures[config.head],
        "model_type": family.model_type,
        "kind": config.kind,
        "structure": structure(config),
        "parameters": weights,
        "active_parameters": config.active_parameters(),
        "weights_fp32": FP32 * weights,
        "weights_bf16": BF16 * weights,
        "length": length,
        "flops_per_token": config.flops_per_token(length),
        "kv_cache": config.kv_cache_bytes(length, BF16, source=length),
        "training": training_bytes(config),
    }


def paper(family: Family) -> str:
    """Where the family comes from: the first paragraph of its preset's documentation."""
    return " ".join((inspect.getdoc(family.preset) or "").partition("\n\n")[0].split()).removesuffix(".")


def structure(config: ModelConfig) -> dict[str, Any]:
    """Fields without a default, and those that are not at it, as JSON has them."""
    values = asdict(config)
    del values["family"]
    return {f.name: values[f.name] for f in fields(config) if f.name in values and (f.default is MISSING or values[f.name] != f.default)}


def fits(known: dict[str, Any], room: int | None) -> str:
    """What ``room`` bytes of memory allow: "training", "reading" (bf16 weights and the cache of one text), "neither", or "unknown"."""
    if room is None:
        return "unknown"
    if known["training"] <= room:
        return "training"
    return "reading" if known["weights_bf16"] + known["kv_cache"] <= room else "neither"
