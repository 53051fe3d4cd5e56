"""Texts that are read and not written: ids and segments to hidden states, and to a head's scores.

    Reading, Reading, ... ─→ rows that hold several (laying.py) ─→ hidden states ─→ a text a row (B, T, W), and which tokens are real
    groups of texts that begin alike ─→ what they share, read once ─→ one state of each text ─→ scores (N, L)

Shapes: B or N texts, T tokens, W width, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from norma.nn import Mask, Transformer
from norma.nn.config import ModelConfig
from norma.text.tokenizer import Tokenizer
from norma.train.laying import laid
from norma.train.scoring import ROUND, Group, answer_states


@dataclass(frozen=True)
class Reading:
    """One text as a model reads it.

    Attributes:
        ids: of the stack whose states are scored. Of an encoder-decoder they are what its decoder would write, the end token last: it
            reads its start token and all but the last of them.
        segments: all 0 but in pairs of an encoder.
        source: what the encoder of an encoder-decoder reads; other models have none.
    """

    ids: Sequence[int]
    segments: Sequence[int]
    source: Sequence[int] = ()

    @staticmethod
    def of_two(tokenizer: Tokenizer, source: Sequence[int], target: Sequence[int]) -> Reading:
        """What two stacks read: ``target`` with the end token behind it, where it is not there."""
        ends = tokenizer.pad_id if tokenizer.eos_id is None else tokenizer.eos_id
        ids = [*target] if target and target[-1] == ends else [*target, ends]
        return Reading(ids, [0] * len(ids), source)

    @property
    def longest(self) -> int:
        """Positions that the model needs for it."""
        return max(len(self.ids), len(self.source))


def fits(config: ModelConfig, text: Reading) -> bool:
    """Whether there is something to read for every stack, and positions for all of it."""
    least = min(len(text.ids), len(text.source)) if config.kind == "encoder-decoder" else len(text.ids)
    return least > 0 and text.longest <= config.max_positions


def states(network: Transformer, texts: Sequence[Reading], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(B, T, W) hidden states in ``dtype``, differentiable, and (B, T) bool, True at real tokens. A text a row, filled up on the right.

    The network reads several texts in a row, each of which sees itself alone. What stands at places that are not real says nothing. Of
    a head that classifies by one state of a text, T is 1: that state; two stacks have no other heads.
    """
    if network.config.kind == "encoder-decoder":
        return _ends(network, texts, dtype)[:, None], torch.ones(len(texts), 1, dtype=torch.bool, device=network.device)
    made = laid([len(text.ids) for text in texts])
    ids, segments, positions, documents = (np.zeros((made.rows, made.length), dtype=np.int64) for _ in range(4))
    longest = -(-max(len(text.ids) for text in texts) // ROUND) * ROUND
    where, real = np.zeros((len(texts), longest), dtype=np.int64), np.zeros((len(texts), longest), dtype=np.bool_)
    for number, (text, (row, first)) in enumerate(zip(texts, made.places, strict=True)):
        n = len(text.ids)
        here = slice(first, first + n)
        ids[row, here], segments[row, here], positions[row, here], documents[row, here] = text.ids, text.segments, np.arange(n), number + 1
        where[number] = row * made.length + first
        where[number, :n] += np.arange(n)
        real[number, :n] = True
    device = network.device
    ids_RL, segments_RL, positions_RL, documents_RL, where_BT, real_BT = (
        torch.from_numpy(x).to(device) for x in (ids, segments, positions, documents, where, real)
    )
    two = segments_RL if network.config.segments > 1 and segments.any() else None
    mask = Mask(documents=documents_RL)
    hidden_RLW = network.hidden(ids_RL, mask, positions_RL, segments_BT=two, dtype=dtype)
    if (alone := _alone(network, real_BT)) is not None:
        where_BT, real_BT = where_BT.gather(1, alone), real_BT.gather(1, alone)
    found = hidden_RLW.flatten(0, 1).index_select(0, where_BT.flatten())
    return found.view(*where_BT.shape, -1), real_BT


def _alone(network: Transformer, real_BT: Tensor) -> Tensor | None:
    """(B, 1) the place of the only state that the head reads; None: it reads more."""
    config = network.config
    if config.head != "classify" or (config.kind == "encoder" and config.pooling == "mean"):
        return None
    return real_BT.sum(dim=1, keepdim=True) - 1 if config.kind == "decoder" else torch.zeros_like(real_BT[:, :1], dtype=torch.int64)


def _by_source(texts: Sequence[Reading]) -> list[tuple[Sequence[int], list[Reading]]]:
    """Texts in a row that have their source in common."""
    return [(source, list(same)) for source, same in groupby(texts, key=lambda text: text.source)]


def _ends(network: Transformer, texts: Sequence[Reading], dtype: torch.dtype) -> Tensor:
    """(N, W) states of two stacks from which each text's end is foretold, where all of it has been read."""
    groups = [Group(source, [text.ids for text in same]) for source, same in _by_source(texts)]
    hidden_MW, _, _ = answer_states(network, groups, dtype=dtype)
    last = torch.tensor([len(text.ids) for text in texts], device=hidden_MW.device).cumsum(dim=0) - 1
    return hidden_MW[last]


def text_scores(network: Transformer, groups: Sequence[Sequence[Reading]], dtype: torch.dtype) -> Tensor:
    """(N, L) fp32, differentiable: what a head that classifies says of all texts of all groups, in order.

    The texts of a group begin alike. A decoder reads what they share once, and each text's score is taken at its last token; an encoder
    reads one text a row; of two stacks the encoder reads a group's source once, and each text's score is taken where its end is foretold.
    """
    if network.config.kind == "decoder":
        return network.classify(_branched(network, groups, dtype).float()[:, None])
    hidden, real_BT = states(network, [text for group in groups for text in group], dtype)
    return network.classify(hidden.float(), real_BT)  # in fp32: differences of rewards need more than bf16's eight bits


def size(network: Transformer, group: Sequence[Reading]) -> int:
    """Tokens that are computed for a group of :func:`text_scores`."""
    if network.config.kind == "encoder":
        return len(group) * max(len(text.ids) for text in group)
    if network.config.kind == "encoder-decoder":
        return sum(len(source) for source, _ in _by_source(group)) + sum(len(text.ids) for text in group)
    shared = _shared(group)
    return shared + sum(len(text.ids) - shared for text in group)


def _shared(group: Sequence[Reading]) -> int:
    """How many tokens the texts of a group have in common from the start, less than any of them has. Causal states there are equal."""
    if len(group) == 1:
        return 0
    ends = [text.ids for text in group]
    most = min(map(len, ends)) - 1
    return next((i for i in range(most) if len({ids[i] for ids in ends}) > 1), most)


def _branched(network: Transformer, groups: Sequence[Sequence[Reading]], dtype: torch.dtype) -> Tensor:
    """(N, W) last states of a decoder.

    A group is a row: what its texts share is document 1 (the trunk), what they do not is a document that sees it and itself.
    """
    length = -(-max(size(network, group) for group in groups) // ROUND) * ROUND
    ids, documents, positions = (np.zeros((len(groups), length), dtype=np.int64) for _ in range(3))
    last: list[int] = []
    for row, group in enumerate(groups):
        shared = _shared(group)
        at = 0
        for document, start, piece in [(1, 0, group[0].ids[:shared]), *((n, shared, t.ids[shared:]) for n, t in enumerate(group, 2))]:
            end = at + len(piece)
            ids[row, at:end], documents[row, at:end] = piece, document
            positions[row, at:end] = np.arange(start, start + len(piece))
            at = end
            if document > 1:
                last.append(row * length + at - 1)
    ids_BT, documents_BT, positions_BT = (torch.from_numpy(x).to(network.device) for x in (ids, documents, positions))
    hidden = network.hidden(ids_BT, Mask(documents=documents_BT, trunk=documents_BT == 1), positions_BT, dtype=dtype)
    return hidden.flatten(0, 1)[torch.tensor(last, device=network.device)]


def parts(sizes: Sequence[int], tokens: int, *, padded: bool = True) -> list[list[int]]:
    """Numbers of the rows of each micro-batch: at most ``tokens`` tokens each, rows of like size together.

    ``padded``: each row takes as much as the longest; False where :func:`states` lays them side by side.
    """
    made: list[list[int]] = []
    held = 0
    for i in sorted(range(len(sizes)), key=lambda i: sizes[i]):
        held = (len(made[-1]) + 1) * sizes[i] if made and padded else held + sizes[i]
        if made and held <= tokens:
            made[-1].append(i)
        else:
            made.append([i])
            held = sizes[i]
    return made
