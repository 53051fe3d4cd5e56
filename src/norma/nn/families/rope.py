"""Rotary settings as layouts write them: ``rope_parameters`` (transformers 5) and, before that, ``rope_theta`` beside ``rope_scaling``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from norma.base.errors import NormaError
from norma.nn.config import ModelConfig, RotaryScaling


def rope_entries(values: Mapping[str, Any]) -> dict[str, Any]:
    """The layout's dictionary of rotary settings, from whichever place it stands in; empty when there is none."""
    return dict(values.get("rope_scaling") or values.get("rope_parameters") or {})


def read_rope(values: Mapping[str, Any], theta: float, theta_key: str = "rope_theta") -> dict[str, Any]:
    """Our ``rope_theta`` and ``rope_scaling``.

    Args:
        theta: the base that the layout's reader assumes when there is none.
        theta_key: the name of the base outside the dictionary.

    Raises:
        NormaError: a kind of scaling that this version does not have.
    """
    given = rope_entries(values)
    base = given.get("rope_theta", values.get(theta_key))
    kind = given.get("rope_type", given.get("type", "default"))
    scaling = None
    if kind == "linear":
        scaling = RotaryScaling("linear", given["factor"])
    elif kind == "llama3":
        scaling = RotaryScaling(
            "llama3",
            given["factor"],
            low_frequency_factor=given["low_freq_factor"],
            high_frequency_factor=given["high_freq_factor"],
            original_positions=given.get("original_max_position_embeddings") or values["max_position_embeddings"],
        )
    elif kind != "default":
        raise NormaError(f"rope_type '{kind}' is not supported", mend="Supported: default, linear, llama3")
    return {"rope_theta": float(theta if base is None else base), "rope_scaling": scaling}


def write_rope(config: ModelConfig, theta_key: str = "rope_theta", **more: float) -> dict[str, Any]:
    """The entries in both places; ``more`` goes into the dictionary."""
    scaling = config.rope_scaling
    entries: dict[str, Any] = {"rope_type": "default" if scaling is None else scaling.kind}
    if scaling is not None:
        entries["factor"] = scaling.factor
        if scaling.kind == "llama3":
            entries |= {
                "low_freq_factor": scaling.low_frequency_factor,
                "high_freq_factor": scaling.high_frequency_factor,
                "original_max_position_embeddings": scaling.original_positions,
            }
    return {
        theta_key: config.rope_theta,
        "rope_scaling": None if scaling is None else dict(entries),
        "rope_parameters": {"rope_theta": config.rope_theta, **entries, **more},
    }
