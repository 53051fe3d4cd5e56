"""Which keys a query sees: one description, lowered to what the machine runs best.

    Mask(causal, prefix, documents, trunk, padding) + the layer's window ─→ allowed (bool) ─→ Seen ─→ attend()

Shapes: B batch (1 where all rows are alike), T queries, S keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

HIDDEN = -1e30  # added to a score that must not count; finite, so that a row without any key is not NaN


@dataclass(frozen=True)
class Mask:
    """Conditions on what a query sees; all that are given must hold. A layer's window comes on top.

    Args:
        causal: a query sees keys at its own and earlier places only. None: as the model's config says.
        prefix: (B, T) bool, True where a key is seen from earlier places too: the bidirectional prefix of a prefix LM.
        documents: (B, T) int64, the number of the packed document each token belongs to; a query sees its own document.
        trunk: (B, T) bool, True where a key is seen from every document of its row: a prompt read once for several answers.
        padding: (B, T) bool, True where a token is real; padded keys are never seen.
    """

    causal: bool | None = None
    prefix: Tensor | None = None
    documents: Tensor | None = None
    trunk: Tensor | None = None
    padding: Tensor | None = None

    @property
    def real(self) -> Tensor | None:
        """(B, T) bool, False at padding, whether that is said by ``padding`` or as document 0; None: all tokens are real."""
        if self.documents is None:
            return self.padding
        return self.documents > 0 if self.padding is None else self.padding & (self.documents > 0)

    def allowed(self, positions_BT: Tensor, *, causal: bool, window: int = 0) -> Tensor:
        """(B, 1, T, T) bool, True where a query may look.

        ``window`` n > 0: a causal query sees the n latest positions, its own included; a bidirectional one those less than n away.
        """
        T, device = positions_BT.shape[1], positions_BT.device
        allowed = torch.ones(1, 1, T, T, dtype=torch.bool, device=device)
        causal = causal if self.causal is None else self.causal
        if causal:
            allowed = allowed.tril()
        if self.prefix is not None:
            allowed = allowed | self.prefix[:, None, None, :]
        if window:
            allowed = allowed & near(positions_BT, positions_BT, window)
        if self.documents is not None:
            same = self.documents[:, None, :, None] == self.documents[:, None, None, :]
            if self.trunk is not None:
                same = same | self.trunk[:, None, None, :]
            allowed = allowed & same
        if self.padding is not None:
            # A padded query sees itself: a row without any key would be NaN.
            allowed = (allowed & self.padding[:, None, None, :]) | torch.eye(T, dtype=torch.bool, device=device)
        return allowed

    def lower(self, positions_BT: Tensor, *, causal: bool, window: int, dtype: torch.dtype, blocks: bool = True) -> Seen:
        """What :func:`norma.nn.attention.attend` needs, for activations of ``dtype``.

        A GPU gets a block mask unless ``blocks`` forbids it.
        """
        T = positions_BT.shape[1]
        causal_now = causal if self.causal is None else self.causal
        conditions = any(x is not None for x in (self.prefix, self.documents, self.padding)) or 0 < window < T
        if not conditions:
            return Seen(causal=causal_now)
        upper_hidden = causal_now and self.prefix is None
        if blocks and positions_BT.device.type == "cuda":
            return Seen(causal=upper_hidden, blocks=self._blocks(positions_BT, causal=causal_now, window=window))
        return Seen(additive(self.allowed(positions_BT, causal=causal, window=window), dtype), causal=upper_hidden)

    def _blocks(self, positions_BT: Tensor, *, causal: bool, window: int) -> Any:
        """The same conditions as a block mask of FlexAttention, which skips the blocks that nobody sees."""
        from torch.nn.attention.flex_attention import create_block_mask

        documents, trunk, prefix, padding = self.documents, self.trunk, self.prefix, self.padding
        rows = next((x.shape[0] for x in (documents, prefix, padding) if x is not None), positions_BT.shape[0])
        positions = positions_BT.expand(rows, -1)

        def seen(b: Tensor, h: Tensor, t: Tensor, s: Tensor) -> Tensor:
            ok = t >= s if causal else t == t
            if prefix is not None:
                ok = ok | prefix[b, s]
            if window:
                ok = ok & ((positions[b, t] - positions[b, s]).abs() < window)
            if documents is not None:
                same = documents[b, t] == documents[b, s]
                ok = ok & (same if trunk is None else same | trunk[b, s])
            return ok if padding is None else (ok & padding[b, s]) | (t == s)

        T = positions.shape[1]
        return create_block_mask(seen, rows, None, T, T, device=positions.device)


@dataclass(frozen=True)
class Stretch:
    """The slots that the one query of each row sees while a model writes.

    Attributes:
        begin, end: (B,) int64, the first slot and the one behind the last.
        rows: (B,) int64, whose keys a row reads: several may share an encoder's output. None: its own.
    """

    begin: Tensor
    end: Tensor
    rows: Tensor | None = None


@dataclass(frozen=True)
class Seen:
    """A lowered mask.

    Attributes:
        bias: (B, 1 or H, T, S) added to the scores; None: nothing is added.
        causal: no query sees a key after its own place. Without ``bias`` and ``blocks`` it must be enforced; with them it is already in
            there, and may be used to skip work.
        blocks: FlexAttention's block mask, in place of ``bias``.
        stretch: the same as ``bias`` in other words, where each row has one query that sees a stretch of slots.
    """

    bias: Tensor | None = None
    causal: bool = False
    blocks: Any = None
    stretch: Stretch | None = None

    def plus(self, bias: Tensor, queries: int) -> Seen:
        """With another term (relative positions) added to the scores."""
        if self.blocks is not None:
            raise ValueError("a block mask takes no additive term")
        if self.bias is not None:
            return Seen(self.bias + bias, self.causal)
        if self.causal:
            triangle = torch.ones(queries, bias.shape[-1], dtype=torch.bool, device=bias.device).tril(bias.shape[-1] - queries)
            bias = bias + additive(triangle, bias.dtype)
        return Seen(bias, self.causal)


def near(queries_BT: Tensor, keys_BS: Tensor, window: int) -> Tensor:
    """(B, 1, T, S) bool: positions less than ``window`` apart."""
    return (queries_BT[:, None, :, None] - keys_BS[:, None, None, :]).abs() < window


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a query may look and a very negative number elsewhere, to be added to the scores."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, HIDDEN)


def across(documents_BT: Tensor | None, memory_padding: Tensor | None, memory_documents: Tensor | None, dtype: torch.dtype) -> Seen:
    """What a decoder's queries see of an encoder's output: real tokens, of their own document where documents are packed."""
    allowed = None if memory_padding is None else memory_padding[:, None, None, :]
    if documents_BT is not None and memory_documents is not None:
        same = documents_BT[:, None, :, None] == memory_documents[:, None, None, :]
        allowed = same if allowed is None else allowed & same
    return Seen() if allowed is None else Seen(additive(allowed, dtype))
