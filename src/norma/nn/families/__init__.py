"""Every family by name. A new one is a file here and a line in this registry."""

from __future__ import annotations

from norma.nn.families import (
    bart,
    bert,
    gemma2,
    gpt,
    gpt3,
    gptj,
    llama,
    marian,
    modernbert,
    neox,
    olmo2,
    palm,
    qwen3_moe,
    starcoder2,
    switch,
    t5,
)
from norma.nn.families.base import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *llama.FAMILIES,
        *qwen3_moe.FAMILIES,
        *gemma2.FAMILIES,
        *olmo2.FAMILIES,
        *gpt.FAMILIES,
        *gpt3.FAMILIES,
        *gptj.FAMILIES,
        *neox.FAMILIES,
        *starcoder2.FAMILIES,
        *palm.FAMILIES,
        *marian.FAMILIES,
        *bart.FAMILIES,
        *t5.FAMILIES,
        *switch.FAMILIES,
        *bert.FAMILIES,
        *modernbert.FAMILIES,
    )
}

__all__ = ["FAMILIES", "Family"]
