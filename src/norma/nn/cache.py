"""Keys and values of what has been read, so that a token more costs one token's work.

    slots:      0 ............ begin ................ length - 1 | length ........ size - 1
    row:        nothing        prompt, answer so far             | room for what comes

All rows end at the same slot, so that one write appends to all of them; each begins where its own text begins. A row whose answer is
finished is given to another prompt (:meth:`Cache.take`); when the buffer is full, everything moves to the left (:meth:`Cache.shift`).

Shapes: L layers, B batch, G key/value heads, S slots, D features of a head, R memories (texts that an encoder has read).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from norma.nn.config import ModelConfig
from norma.nn.mask import Seen, Stretch, additive, near

ROUND = 32  # a single query's slots are rounded to it, so that matrix products see few shapes


class Cache:
    """A fixed buffer for every layer of a decoder, filled from the left.

    Attributes:
        visible: (B, S) bool, which slots hold real tokens; prompts of unequal length are padded on the left.
        begins: (B,) int64, the first real slot of each row, where all slots from there on are real; it then stands in for ``visible``.
        cross: layer → keys and values of an encoder's output, (R, G, S, D) each, made when they are first needed.
        cross_rows: (B,) int64, the memory each row looks at; None: row b at memory b.
        cross_lengths: (R,) int64, the real tokens of each memory; needed with ``cross_rows``.
        length: slots that are filled.
        first: no row begins before this slot.
    """

    def __init__(self, config: ModelConfig, batch: int, size: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (config.layers, batch, config.kv_heads, size, config.head_size)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.visible = torch.zeros(batch, size, dtype=torch.bool, device=device)
        self.positions = torch.zeros(batch, size, dtype=torch.int64, device=device)
        self.begins: Tensor | None = None
        self.cross: dict[int, tuple[Tensor, Tensor]] = {}
        self.cross_rows: Tensor | None = None
        self.cross_lengths: Tensor | None = None
        self.length = self.first = 0

    @property
    def size(self) -> int:
        return self.keys.shape[3]

    # ── while a model reads or writes ──
    def append(self, layer: int, k_BGTD: Tensor, v_BGTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values; return all that :meth:`lower` speaks of, (B, G, S, D) each."""
        new = slice(self.length, self.length + k_BGTD.shape[2])
        self.keys[layer, :, :, new] = k_BGTD
        self.values[layer, :, :, new] = v_BGTD
        reach = self._reach(k_BGTD.shape[2])
        return self.keys[layer, :, :, reach], self.values[layer, :, :, reach]

    def note(self, positions_BT: Tensor) -> None:
        """Write down the positions of the tokens about to be read."""
        self.positions[:, self.length : self.length + positions_BT.shape[1]] = positions_BT

    def seen_positions(self, length: int) -> Tensor:
        """(B, S): positions of the slots that ``length`` new tokens may look at."""
        return self.positions[:, self._reach(length)]

    def lower(self, length: int, window: int, dtype: torch.dtype) -> Seen:
        """What ``length`` new tokens see: real slots up to their own, their own in any case, and no farther than the window."""
        reach = self._reach(length)
        slots = torch.arange(reach.start, reach.stop, device=self.visible.device)
        mine = slots[self.length - reach.start :][:length, None]
        real = self.visible[:, reach] if self.begins is None else slots >= self.begins[:, None]
        allowed = (real[:, None, None, :] & (slots <= mine)) | (slots == mine)
        if window:
            queries = self.positions[:, self.length : self.length + length]
            allowed = allowed & near(queries, self.positions[:, reach], window)
        stretch = None
        if length == 1 and self.begins is not None:  # positions follow the slots here, so a window is a stretch too
            earliest = max(self.first, self.length + 1 - window) if window else self.first
            begin = self.begins.clamp(min=earliest, max=self.length) - reach.start
            stretch = Stretch(begin, torch.full_like(begin, self.length + 1 - reach.start))
        return Seen(additive(allowed, dtype), stretch=stretch)

    def lower_memory(self, dtype: torch.dtype) -> Seen:
        """What the next token of each row sees of the memories."""
        assert self.cross_rows is not None and self.cross_lengths is not None
        end, slots = self.cross_lengths[self.cross_rows], next(iter(self.cross.values()))[0].shape[2]
        real = torch.arange(slots, device=end.device) < end[:, None]
        return Seen(additive(real[:, None, None, :], dtype), stretch=Stretch(torch.zeros_like(end), end, self.cross_rows))

    def _reach(self, length: int) -> slice:
        """The slots that are looked at when ``length`` tokens are read; those of one token are rounded."""
        end = self.length + length
        return slice(self.first // ROUND * ROUND, min(self.size, -(-end // ROUND) * ROUND)) if length == 1 else slice(0, end)

    # ── rows that come and go ──
    def keep(self, rows: Tensor) -> None:
        """Keep only these rows of the batch (finished ones leave), or copy some."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.visible, self.positions = self.visible[rows], self.positions[rows]
        self.begins = None if self.begins is None else self.begins[rows]
        if self.cross_rows is None:
            self.cross = {layer: (k[rows], v[rows]) for layer, (k, v) in self.cross.items()}
        else:
            self.cross_rows = self.cross_rows[rows]

    def widen(self, rows: int = 0, front: int = 0, back: int = 0) -> None:
        """Room for more: ``rows`` behind the last, which hold nothing; slots before the first and behind the last."""
        self.keys, self.values = (F.pad(held, (0, 0, front, back, 0, 0, 0, rows)) for held in (self.keys, self.values))
        self.visible, self.positions = (F.pad(told, (front, back, 0, rows)) for told in (self.visible, self.positions))
        self.length, self.first = self.length + front, self.first + front
        if self.begins is not None:
            self.begins = F.pad(self.begins + front, (0, rows), value=self.length)
        if self.cross_rows is not None:
            self.cross_rows = F.pad(self.cross_rows, (0, rows))

    def take(self, rows: Tensor, other: Cache, which: Tensor) -> None:
        """Row ``rows[i]`` becomes what ``other`` holds in its row ``which[i]``, moved so that it ends where our rows end."""
        assert self.begins is not None
        for source in sorted(set(which.tolist())):
            mine = rows[which == source]
            held = other.visible[source] if other.begins is None else torch.arange(other.size, device=rows.device) >= other.begins[source]
            read = held[: other.length].nonzero().squeeze(1)
            begin = self.length - len(read)
            self.keys[:, mine, :, begin : self.length] = other.keys[:, source].index_select(2, read)[:, None]
            self.values[:, mine, :, begin : self.length] = other.values[:, source].index_select(2, read)[:, None]
            self.positions[mine, begin : self.length] = other.positions[source, read]
            self.begins[mine] = begin

    def remember(self, rows: Tensor, other: Cache, which: Tensor, others: Tensor) -> None:
        """From now on row ``rows[i]`` looks at the memory of ``other``'s row ``which[i]``.

        Memories that neither they nor the rows ``others`` look at are forgotten. Each is held once, however many rows share it.
        """
        assert other.cross_lengths is not None
        if self.cross_rows is None or self.cross_lengths is None:
            self.cross, self.cross_lengths = dict(other.cross), other.cross_lengths
            self.cross_rows = torch.zeros(len(self.visible), dtype=torch.int64, device=rows.device)
            self.cross_rows[rows] = which
            return
        used, place = torch.unique(self.cross_rows[others], return_inverse=True)
        size = max(next(iter(cache.cross.values()))[0].shape[2] for cache in (self, other))
        for layer, mine in self.cross.items():
            both = zip(mine, other.cross[layer], strict=True)
            k, v = (torch.cat((_longer(old[used], size), _longer(new, size))) for old, new in both)
            self.cross[layer] = (k, v)
        self.cross_lengths = torch.cat((self.cross_lengths[used], other.cross_lengths))
        self.cross_rows = torch.zeros_like(self.cross_rows)
        self.cross_rows[others], self.cross_rows[rows] = place, which + len(used)

    def shift(self, by: int) -> None:
        """Forget the first ``by`` slots."""
        kept = slice(by, self.length)
        self.length -= by
        for held in (self.keys, self.values):
            held[:, :, :, : self.length] = held[:, :, :, kept].clone()
        for told in (self.visible, self.positions):
            told[:, : self.length] = told[:, kept].clone()
        self.visible[:, self.length :] = False
        if self.begins is not None:
            self.begins = (self.begins - by).clamp(min=0)
        self.first = max(0, self.first - by)


def _longer(x_RGSD: Tensor, size: int) -> Tensor:
    return F.pad(x_RGSD, (0, 0, 0, size - x_RGSD.shape[2]))
