"""Streams for models of two stacks: what an encoder reads, and what a decoder then writes.

    numbers of rows ─→ Sequences ─→ packed tokens ─┬→ Spans: hidden spans, to be written behind their sentinels (T5)
                                                   └→ Denoising: each document changed, to be written as it was (BART)
    rows of a file ─→ GivenPairs: a source text, a target text (translation, summaries, answers)
    packed conversations ─→ answering: what is learnt, behind what stands before it

The decoder reads its target moved by one behind the start token that its family has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from norma.base.errors import NormaError
from norma.base.files import read_jsonl
from norma.base.random import keyed
from norma.objectives.denoising import Noise, denoise
from norma.objectives.spans import SpanLengths, corrupt_spans
from norma.text.packing import IGNORE, Batch
from norma.text.permutation import Permutation
from norma.text.sequences import Sequences
from norma.text.tokenizer import Tokenizer
from norma.train.examples import Examples

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Spans:
    """Span corruption (1910.10683, 3.1.4). ``sequences`` have ``lengths.raw`` tokens.

    As in the paper a row is one text, whatever documents it was packed of: a span may reach over their border.
    """

    sequences: Sequences
    lengths: SpanLengths
    sentinels: tuple[int, ...]
    start: int
    end: int
    seed: int
    name: str = "spans"

    def __len__(self) -> int:
        return len(self.sequences)

    def rows(self, numbers: Ints, step: int) -> Examples:
        packed = self.sequences.rows(numbers)
        source = np.zeros((len(numbers), self.lengths.source), dtype=np.int64)
        targets = np.zeros((len(numbers), self.lengths.target), dtype=np.int64)
        for b, number in enumerate(numbers.tolist()):
            raw = packed.ids[b, packed.documents[b] > 0]  # fewer in the last sequence of an epoch, which then repeats them
            source[b], targets[b] = corrupt_spans(
                np.resize(raw, self.lengths.raw),
                self.lengths,
                keyed(self.seed, number, use="spans"),
                sentinels=self.sentinels,
                end=self.end,
            )
        ones = np.ones_like(targets)
        positions = np.broadcast_to(np.arange(targets.shape[1]), targets.shape).copy()
        ids = shifted(targets, ones, self.start)
        return Examples(ids, targets, ones, positions, source=source, source_documents=np.ones_like(source))


@dataclass(frozen=True)
class Denoising:
    """Text infilling and sentence permutation (1910.13461, 2.2), each document of a packed row by itself."""

    sequences: Sequences
    noise: Noise
    mask: int
    start: int
    seed: int
    name: str = "denoising"

    def __len__(self) -> int:
        return len(self.sequences)

    def rows(self, numbers: Ints, step: int) -> Examples:
        packed = self.sequences.rows(numbers)
        source = np.full_like(packed.ids, self.sequences.shards.made.pad)
        documents = np.zeros_like(source)
        for b, number in enumerate(numbers.tolist()):
            random, at = keyed(self.seed, number, use="denoising"), 0
            for document in range(1, int(packed.documents[b].max()) + 1):
                here = packed.documents[b] == document
                noised = denoise(packed.ids[b, here], packed.flags[b, here], random, mask=self.mask, noise=self.noise)
                source[b, at : at + len(noised)], documents[b, at : at + len(noised)] = noised, document
                at += len(noised)
        targets = np.where(packed.documents > 0, packed.ids, IGNORE)
        ids = shifted(packed.ids, packed.documents, self.start)
        return Examples(ids, targets, packed.documents, packed.positions, source=source, source_documents=documents)


POOL, GROUP = 4096, 64  # pairs that are sorted together, and that stay together


@dataclass(frozen=True)
class GivenPairs:
    """Pairs of texts as tokens, a row each; every epoch in another order. Both end with the end token.

    Attributes:
        pairs: (source, target) ids.
        left_out: pairs that were too long, or empty.
        by_length: pairs of like length stand in groups, the groups in random order: rows need hardly any padding then.
    """

    pairs: Sequence[tuple[Ints, Ints]]
    left_out: int
    start: int
    pad: int
    seed: int
    name: str = "given"
    by_length: bool = False
    _orders: dict[int, Ints] = field(default_factory=dict, repr=False, compare=False)  # of the epochs that were asked for last

    @staticmethod
    def read(path: Path, tokenizer: Tokenizer, *, length: int, start: int, seed: int, by_length: bool = False) -> GivenPairs:
        """Rows ``{"source": ..., "target": ...}``, or conversations: what stands before the last answer, and that answer.

        Pairs of which a side has more than ``length`` tokens are left out and counted.
        """
        texts = list(_texts(read_jsonl(path), path))
        end = tokenizer.eos_id
        tail = [] if end is None else [end]
        sides = [tokenizer.encode_batch([pair[side] for pair in texts]) for side in (0, 1)]
        made = [(np.array(a + tail, dtype=np.int64), np.array(b + tail, dtype=np.int64)) for a, b in zip(*sides, strict=True)]
        fit = [pair for pair in made if all(len(tail) < len(ids) <= length for ids in pair)]
        if not fit:
            mend = "Raise sequence, or look at the file: rows need source and target, or messages"
            raise NormaError(f"no pair of texts fits into {length} tokens", where=path, mend=mend)
        return GivenPairs(fit, len(made) - len(fit), start, tokenizer.pad_id, seed, by_length=by_length)

    def __len__(self) -> int:
        return len(self.pairs)

    def rows(self, numbers: Ints, step: int) -> Examples:
        chosen = [self.pairs[self._pair(*divmod(number, len(self.pairs)))] for number in numbers.tolist()]
        source, read = padded([pair[0] for pair in chosen], self.pad)
        targets, documents = padded([pair[1] for pair in chosen], IGNORE)
        positions = np.broadcast_to(np.arange(targets.shape[1]), targets.shape).copy()
        ids = shifted(np.where(documents > 0, targets, self.pad), documents, self.start)
        return Examples(ids, targets, documents, positions, source=source, source_documents=read)

    def _pair(self, epoch: int, place: int) -> int:
        """The number of the pair at a place of an epoch: a pure function of both and the seed."""
        if epoch not in self._orders:
            for old in sorted(self._orders)[:-1]:
                del self._orders[old]
            words = np.random.SeedSequence([self.seed, epoch]).generate_state(2, np.uint64).tolist()
            order = Permutation(len(self.pairs), words[0] << 64 | words[1])[np.arange(len(self.pairs))]
            self._orders[epoch] = self._grouped(order, epoch) if self.by_length else order
        return int(self._orders[epoch][place])

    def _grouped(self, order: Ints, epoch: int) -> Ints:
        """The order with pairs of like length side by side, ``GROUP`` of them; what does not fill a group comes last."""
        lengths = np.array([len(a) + len(b) for a, b in self.pairs])
        pools = [order[i : i + POOL] for i in range(0, len(order), POOL)]
        by_length = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
        whole = len(by_length) - len(by_length) % GROUP
        groups = by_length[:whole].reshape(-1, GROUP)
        return np.concatenate([groups[keyed(self.seed, epoch, use="groups").permutation(len(groups))].ravel(), by_length[whole:]])


def answering(batch: Batch, start: int) -> Examples:
    """Packed rows for two stacks: each stretch of tokens that are learnt is a target, and what stands before it in its row the source.

    A conversation of several answers gives as many pairs, and the encoder reads the answers before.
    """
    bins = [list(_answers(*row)) for row in zip(batch.ids, batch.targets, batch.documents, strict=True)]
    (source, read, _), (targets, documents, positions) = (_side_by_side([[pair[k] for pair in pairs] for pairs in bins]) for k in (0, 1))
    ids = shifted(targets, documents, start)
    return Examples(ids, np.where(documents > 0, targets, IGNORE), documents, positions, source=source, source_documents=read)


def _answers(ids_T: Ints, targets_T: Ints, documents_T: Ints) -> Iterable[tuple[Ints, Ints]]:
    """(source, target) of each stretch of targets within a document."""
    for document in range(1, int(documents_T.max()) + 1):
        here = np.flatnonzero(documents_T == document)
        ids, targets = ids_T[here], targets_T[here]
        learnt = np.concatenate([[False], targets != IGNORE, [False]])
        for begin, end in np.flatnonzero(learnt[1:] != learnt[:-1]).reshape(-1, 2):
            yield ids[: begin + 1], targets[begin:end]


def _side_by_side(bins: Sequence[Sequence[Ints]]) -> tuple[Ints, Ints, Ints]:
    """Texts of each bin in a row (B, longest), 0 behind them; their numbers, from 1; their positions."""
    shape = (len(bins), max(1, *(sum(map(len, texts)) for texts in bins)))
    out, documents, positions = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    for b, texts in enumerate(bins):
        at = 0
        for number, text in enumerate(texts, 1):
            here = slice(at, at + len(text))
            out[b, here], documents[b, here], positions[b, here] = text, number, np.arange(len(text))
            at += len(text)
    return out, documents, positions


def shifted(ids_BT: Ints, documents_BT: Ints, start: int) -> Ints:
    """What a decoder reads: the token before, ``start`` at the first of each document."""
    before = np.roll(ids_BT, 1, axis=1)
    first = documents_BT != np.roll(documents_BT, 1, axis=1)
    first[:, 0] = True
    return np.where(first & (documents_BT > 0), start, before)


def padded(rows: Sequence[Ints], fill: int) -> tuple[Ints, Ints]:
    """Rows of several lengths (B, longest), and 1 where they are, 0 behind their ends."""
    shape = (len(rows), max(map(len, rows)))
    out, documents = np.full(shape, fill, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for b, row in enumerate(rows):
        out[b, : len(row)], documents[b, : len(row)] = row, 1
    return out, documents


def _texts(rows: Iterable[dict[str, Any]], path: Path) -> Iterable[tuple[str, str]]:
    for number, row in enumerate(rows, 1):
        if "messages" in row:
            *before, last = row["messages"]
            yield "\n".join(message["content"] for message in before), last["content"]
        elif "source" in row and "target" in row:
            yield row["source"], row["target"]
        else:
            mend = "Give each row source and target, or messages"
            raise NormaError("this row is no pair of texts", where=f"{path}, row {number}", mend=mend)
