"""Where the rows of a pretraining step come from: a stream for each objective and corpus, computed from (shards, seed, numbers).

    numbers of rows ─→ Sequences ─→ packed tokens ─┬→ NextToken: as they are                       causal
                                                   ├→ Masked: some hidden                          both sides
                                                   └→ Infilling: a middle moved to the end         causal
                    ─→ documents ─→ Pairs: [CLS] A [SEP] B [SEP], some hidden, does B follow A?    both sides

A row's number is its place in the stream, counted through all epochs; whoever asks for it, on whatever rank, gets the same row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from norma.base.errors import NormaError
from norma.base.random import keyed
from norma.objectives.alternating import keep_first, masked_next_token, next_token
from norma.objectives.conditional import ByGrade, grade_weights
from norma.objectives.infilling import ADDED, Sentinels, fill_in_the_middle
from norma.objectives.masking import Masking, MaskTokens, mask_tokens
from norma.objectives.sentences import PairTokens, next_sentence, pairable, sentence_order
from norma.text.grades import rewards_of
from norma.text.packing import IGNORE
from norma.text.sequences import Sequences
from norma.text.shards import Shards
from norma.train.examples import Examples

Ints = npt.NDArray[np.int64]
TRIES = 100  # documents that are drawn for one pair before the corpus is said to have none


class Stream(Protocol):
    """An objective over a corpus.

    Attributes:
        name: of its numbers in ``metrics.jsonl``.
    """

    @property
    def name(self) -> str: ...

    def __len__(self) -> int:
        """Rows that make an epoch."""
        ...

    def rows(self, numbers: Ints, step: int) -> Examples:
        """The rows of these numbers; ``step`` matters only for what changes over the training (a mask rate)."""
        ...


@dataclass(frozen=True)
class NextToken:
    """Generative: each token from those before it (GPT, Radford et al. 2018, eq. 1).

    Args:
        by: how the grades of the text weigh on its loss; None: all tokens count alike.
    """

    sequences: Sequences
    by: ByGrade | None = None
    name: str = "generative"

    def __len__(self) -> int:
        return len(self.sequences)

    def rows(self, numbers: Ints, step: int) -> Examples:
        packed = self.sequences.rows(numbers)
        targets, weights = next_token(packed.ids, packed.documents), None
        if self.by is not None:
            weights = np.roll(grade_weights(rewards_of(packed.flags), self.by), -1, axis=1)  # of the token that is predicted
        return Examples(packed.ids, targets, packed.documents, packed.positions, weights=weights)


@dataclass(frozen=True)
class Masked:
    """Masked tokens from both sides (BERT, 1810.04805, 3.1).

    Args:
        steps: of the whole training, for a mask rate that changes.
        shifted: token t is read off place t - 1, so that a model which also predicts next tokens can keep one head
            (see :mod:`norma.objectives.alternating`).
    """

    sequences: Sequences
    tokens: MaskTokens
    masking: Masking
    steps: int
    seed: int
    shifted: bool = False
    name: str = "masked"

    def __len__(self) -> int:
        return len(self.sequences)

    def rows(self, numbers: Ints, step: int) -> Examples:
        packed, masking = self.sequences.rows(numbers), self.masking.at(step, self.steps)
        flags = keep_first(packed.flags, packed.documents) if self.shifted else packed.flags
        ids, targets = np.empty_like(packed.ids), np.empty_like(packed.ids)
        for b, number in enumerate(numbers.tolist()):
            random = keyed(self.seed, number, use="masking")
            ids[b], targets[b] = mask_tokens(
                packed.ids[b], packed.documents[b], flags[b], tokens=self.tokens, masking=masking, random=random
            )
        if self.shifted:
            targets = masked_next_token(targets, packed.documents)
        return Examples(ids, targets, packed.documents, packed.positions, causal=False)


@dataclass(frozen=True)
class Infilling:
    """Next tokens of rows whose longest document has, with chance ``rate``, its middle at the end (2207.14255).

    ``sequences`` leave room for what that adds: they are ``ADDED`` tokens shorter than the rows.
    """

    sequences: Sequences
    sentinels: Sentinels
    seed: int
    rate: float = 0.5
    suffix_first: float = 0.5
    name: str = "infilling"

    def __len__(self) -> int:
        return len(self.sequences)

    def rows(self, numbers: Ints, step: int) -> Examples:
        packed, pad = self.sequences.rows(numbers), self.sequences.shards.made.pad
        shape = (len(numbers), self.sequences.length + ADDED)
        ids, documents, positions = np.full(shape, pad, dtype=np.int64), np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for b, number in enumerate(numbers.tolist()):
            old = packed.documents[b]
            longest = int(np.bincount(old)[1:].argmax()) + 1
            here = np.flatnonzero(old == longest)
            start, end, used = int(here[0]), int(here[-1]) + 1, int((old > 0).sum())
            changed, _ = fill_in_the_middle(
                packed.ids[b, start:end],
                packed.flags[b, start:end],
                keyed(self.seed, number, use="infilling"),
                sentinels=self.sentinels,
                rate=self.rate,
                suffix_first=self.suffix_first,
            )
            more = len(changed) - (end - start)
            ids[b, : used + more] = np.concatenate([packed.ids[b, :start], changed, packed.ids[b, end:used]])
            documents[b, : used + more] = np.concatenate([old[:start], np.full(len(changed), longest), old[end:used]])
            first = positions[b, : used + more]
            first[:] = np.concatenate([packed.positions[b, :start], np.arange(len(changed)), packed.positions[b, end:used]])
        return Examples(ids, next_token(ids, documents), documents, positions)


@dataclass(frozen=True)
class Pairs:
    """Next-sentence or sentence-order prediction, and masked tokens of the same rows (1810.04805, 3.1; 1909.11942, 3.1).

    A row holds one pair of at most ``length`` tokens. Documents are drawn in proportion to their tokens.
    """

    shards: Shards
    length: int
    pair: PairTokens
    tokens: MaskTokens
    masking: Masking
    steps: int
    seed: int
    order: Literal["next", "order"] = "next"
    name: str = "pairs"

    def __len__(self) -> int:
        """As many as hold each token once, were the pairs full."""
        return -(-self.shards.tokens // self.length)

    def rows(self, numbers: Ints, step: int) -> Examples:
        shape, masking = (len(numbers), self.length), self.masking.at(step, self.steps)
        ids = np.full(shape, self.shards.made.pad, dtype=np.int64)
        targets, documents, segments = np.full(shape, IGNORE, dtype=np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        labels = np.zeros(len(numbers), dtype=np.int64)
        make = next_sentence if self.order == "next" else sentence_order
        for b, number in enumerate(numbers.tolist()):
            random = keyed(self.seed, number, use="pairs")
            pair = make(self.shards, self._drawn(random), random, length=self.length, tokens=self.pair)
            n = len(pair.ids)
            documents[b, :n], segments[b, :n], labels[b] = 1, pair.segments, pair.label
            ids[b, :n], targets[b, :n] = mask_tokens(
                pair.ids, documents[b, :n], pair.flags, tokens=self.tokens, masking=masking, random=keyed(self.seed, number, use="masking")
            )
        positions = np.broadcast_to(np.arange(self.length), shape).copy()
        return Examples(ids, targets, documents, positions, causal=False, segments=segments, labels=labels)

    def _drawn(self, random: np.random.Generator) -> int:
        """A document that can be divided."""
        for _ in range(TRIES):
            index = self.shards.holder(int(random.integers(self.shards.tokens)))
            if pairable(self.shards.document(index)[1]):
                return index
        raise NormaError(
            "hardly a document has two sentences: there are no pairs to learn", where=self.shards.folder, mend="Use longer texts"
        )
