"""Floor 1: ONE Transformer. A family is a preset (a function that returns a config) and a table of names.

    ModelConfig ─→ Transformer(ids, mask, positions, cache) ─→ hidden states ─→ logits
    presets.py: published sizes        names.py: our tensor names ↔ a Hugging Face layout's

The model knows nothing of devices, ranks, tokenizers or losses.
"""

from norma.nn.attention import Cache, Mask
from norma.nn.config import ModelConfig
from norma.nn.model import Transformer
from norma.nn.names import from_hf, to_hf
from norma.nn.presets import PRESETS, preset

__all__ = ["PRESETS", "Cache", "Mask", "ModelConfig", "Transformer", "from_hf", "preset", "to_hf"]
