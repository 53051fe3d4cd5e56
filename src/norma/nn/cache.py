"""Keys and values of what has been read, so that a token more costs one token's work.

Shapes: L layers, B batch, G key/value heads, S slots, D features of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from norma.nn.config import ModelConfig
from norma.nn.mask import Seen, additive, near


class Cache:
    """A fixed buffer for every layer of a decoder, filled from the left.

    ``visible`` (B, S) bool says which slots hold real tokens; prompts of unequal length are padded on the left. Keys and values of an
    encoder's output are kept in ``cross``, made when they are first needed.
    """

    def __init__(self, config: ModelConfig, batch: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (config.layers, batch, config.kv_heads, size, config.head_size)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.visible = torch.zeros(batch, size, dtype=torch.bool, device=device)
        self.positions = torch.zeros(batch, size, dtype=torch.int64, device=device)
        self.cross: dict[int, tuple[Tensor, Tensor]] = {}
        self.length = 0

    def append(self, layer: int, k_BGTD: Tensor, v_BGTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values; return all that are held so far, (B, G, S, D) each."""
        end = self.length + k_BGTD.shape[2]
        self.keys[layer, :, :, self.length : end] = k_BGTD
        self.values[layer, :, :, self.length : end] = v_BGTD
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows of the batch (finished ones leave), or copy some."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.visible, self.positions = self.visible[rows], self.positions[rows]
        self.cross = {layer: (k[rows], v[rows]) for layer, (k, v) in self.cross.items()}

    def note(self, positions_BT: Tensor) -> None:
        """Write down the positions of the tokens about to be read."""
        self.positions[:, self.length : self.length + positions_BT.shape[1]] = positions_BT

    def lower(self, length: int, window: int, dtype: torch.dtype) -> Seen:
        """What ``length`` new tokens see: visible slots up to their own, their own in any case, and no farther than the window."""
        end = self.length + length
        slots = torch.arange(end, device=self.visible.device)
        mine = slots[self.length :, None]
        allowed = (self.visible[:, None, None, :end] & (slots <= mine)) | (slots == mine)
        if window:
            allowed = allowed & near(self.positions[:, self.length : end], self.positions[:, :end], window)
        return Seen(additive(allowed, dtype))
