"""Floor 1: ONE Transformer for every family: encoder, decoder or both; dense or with experts.

    families/*.py   a family: preset (sizes → ModelConfig), name table, config.json
    ModelConfig ─→ Transformer ─→ Stack (encoder, decoder) ─→ Block ─→ Attention, FeedForward or ExpertFeedForward
    mask.py, positions.py, cache.py     what a query sees, where a token stands, what has been read
    layout.py                           model folders of the Hugging Face layout, both ways
    initialise.py, counting.py, lora.py new weights; exact counts; low-rank adapters

The model knows nothing of devices, ranks, tokenizers or losses.
"""

from norma.nn.attention import Watch
from norma.nn.cache import Cache
from norma.nn.config import Experts, ModelConfig
from norma.nn.layout import config_from_hf, config_to_hf, from_hf, to_hf, with_head
from norma.nn.mask import Mask
from norma.nn.model import Transformer
from norma.nn.presets import preset, published
from norma.nn.stack import Memory

__all__ = [
    "Cache", "Experts", "Mask", "Memory", "ModelConfig", "Transformer", "Watch",
    "config_from_hf", "config_to_hf", "from_hf", "preset", "published", "to_hf", "with_head",
]
