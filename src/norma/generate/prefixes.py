"""What many prompts begin with is read once: keys and values of the last prompts' beginnings.

    prompt ─→ blocks of 32 tokens, each under the digest of all ids up to its end ─→ keys and values; the least recently used are forgotten

A block can be found only with everything that stands before it, as its keys and values depend on it (Kwon et al., 2309.06180, 4.3).
Letters: L layers, G key/value heads, S slots, D features of a head.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from norma.nn import Cache

BLOCK = 32  # tokens


class Prefixes:
    """Blocks of at most ``most`` bytes in all. For one model in one number format, and one thread.

    Attributes:
        bytes: held now.
        asked, found: tokens of the prompts that were looked up, and how many of them were here.
    """

    def __init__(self, most: int) -> None:
        self.most, self.bytes, self.asked, self.found = most, 0, 0, 0
        self._blocks: OrderedDict[bytes, Tensor] = OrderedDict()  # (2, L, G, 32, D): keys, values

    def load(self, prompt: Sequence[int], cache: Cache, at: int) -> int:
        """Put what is known of ``prompt`` into the only row of ``cache``, from slot ``at`` on; how many tokens that is."""
        known = []
        for name in block_names(prompt):
            if name not in self._blocks:
                break
            known.append(name)
        for i, name in enumerate(known):
            here = slice(at + i * BLOCK, at + (i + 1) * BLOCK)
            cache.keys[:, 0, :, here], cache.values[:, 0, :, here] = self._blocks[name]
        self._touch(known)
        count = len(known) * BLOCK
        cache.positions[0, at : at + count] = torch.arange(count, device=cache.positions.device)
        self.asked, self.found = self.asked + len(prompt), self.found + count
        return count

    def keep(self, prompt: Sequence[int], cache: Cache, at: int) -> None:
        """Remember the whole blocks of ``prompt``, which stands in the only row of ``cache`` from slot ``at`` on."""
        names = block_names(prompt)
        for i, name in enumerate(names):
            if name not in self._blocks:
                here = slice(at + i * BLOCK, at + (i + 1) * BLOCK)
                self._blocks[name] = torch.stack((cache.keys[:, 0, :, here], cache.values[:, 0, :, here]))
                self.bytes += self._blocks[name].nbytes
        self._touch(names)
        while self.bytes > self.most:
            _, oldest = self._blocks.popitem(last=False)
            self.bytes -= oldest.nbytes

    def _touch(self, names: Sequence[bytes]) -> None:
        """The beginning was used last: without it, what follows could not be found."""
        for name in reversed(names):
            self._blocks.move_to_end(name)


def block_names(ids: Sequence[int]) -> list[bytes]:
    """For each whole block the SHA-256 digest of all ids up to its end."""
    names, so_far = [], hashlib.sha256()
    for end in range(BLOCK, len(ids) + 1, BLOCK):
        so_far.update(array("q", ids[end - BLOCK : end]).tobytes())
        names.append(so_far.copy().digest())
    return names
