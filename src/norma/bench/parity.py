"""How far Norma's numbers are from Hugging Face's, family by family: ``norma bench parity``.

    Case ─→ HF model, all weights random ─→ save_pretrained ─→ config_from_hf, from_hf ─→ our Transformer
                     │ outputs, loss, gradients, attention, padding ─→ compared ←─ outputs, loss, ... │
                     └───── from_pretrained, save_pretrained ←── config_to_hf, to_hf ←────────────────┘ ─→ Row

Cases are data: a module in ``norma.bench.cases`` for each file of ``norma.nn.families``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Case:
    """One HF model to agree with. Everything is fp32; ``eager`` attention on their side.

    The loss is their own (``labels=``): next token for decoders, masked tokens for encoders, the target for encoder-decoders, labels
    for the task heads; for a model without a head it is the mean of its states times fixed random numbers.

    Attributes:
        family: ours, as in ``norma.nn.families.FAMILIES``.
        name: what is special about it, such as "tied, grouped queries".
        model: their class, such as "LlamaForCausalLM".
        config: keyword arguments of that class's config. Small odd sizes. ``pad_token_id`` decides whether the pad token is read as an
            ordinary token too (its embedding row has no gradient in layouts that pad); the token that pads is it, or 0.
        preset: keyword arguments of our preset, for the way back: a model of ours is written, their class loads it, both score alike.
            None: a model with the config that was read, and new random weights, goes that way.
        length, source: tokens of a row; of a source text where there is an encoder in front.
        sides: where padding is tested: our padded rows against their unpadded rows.
        masked: sides on which their own masked result is compared too; None: right, and left where they take ``position_ids`` or
            where positions are relative.
        reads_pad: False where the pad token cannot be an ordinary token (RoBERTa counts positions by it).
        attention: whether attention weights are compared.
        spread: standard deviation of what is added to every weight.
        own_head: their ``lm_head`` gets a weight of its own before anything is saved: transformers 5 ties every T5 that it makes, whatever
            the config says, but keeps a head apart that a file holds.
    """

    family: str
    name: str
    model: str
    config: Mapping[str, Any]
    preset: Mapping[str, Any] | None = None
    length: int = 13
    source: int = 11
    sides: tuple[Side, ...] = ("left", "right")
    masked: tuple[Side, ...] | None = None
    reads_pad: bool = True
    attention: bool = True
    spread: float = 0.15
    own_head: bool = False

    @property
    def id(self) -> str:
        return f"{self.family}: {self.name}"
