"""Rows of tokens packed into fixed-length sequences. The batch at step N is a pure function of (rows, seed, N).

    rows (whole documents or conversations) ─→ permutation of the epoch ─→ bins of at most T tokens ─→ batches of B bins

A row is never split over bins and never sees another row: ``documents`` numbers the rows of a bin for the attention mask,
positions start anew with each. Nothing is remembered between steps, so resuming needs the step number only.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from norma.base.errors import NormaError
from norma.base.files import atomic_writer

IGNORE = -100
WINDOW = 4096  # rows that are fitted into bins together

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Token rows, flat: row i is ``tokens[offsets[i]:offsets[i+1]]``; ``trained`` says which tokens are to be predicted."""

    tokens: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self) -> Ints:
        return np.diff(self.offsets)

    @staticmethod
    def build(rows: Iterable[tuple[Sequence[int], Sequence[bool]]], limit: int) -> Rows:
        """Collect rows; one longer than ``limit`` is cut into pieces of at most ``limit`` tokens.

        The last token of a piece is the first of the next, so that every token but a row's first is predicted once.
        """
        tokens: list[npt.NDArray[np.int32]] = []
        trained: list[npt.NDArray[np.bool_]] = []
        for ids, flags in rows:
            start = 0
            while start < len(ids) - 1 or (start == 0 and len(ids) == 1):
                tokens.append(np.asarray(ids[start : start + limit], dtype=np.int32))
                trained.append(np.asarray(flags[start : start + limit], dtype=np.bool_))
                start += limit - 1
        if not tokens:
            raise NormaError("there are no rows to train on", mend="Check the corpus stage's counts")
        offsets = np.concatenate([[0], np.cumsum([len(t) for t in tokens])]).astype(np.int64)
        return Rows(np.concatenate(tokens), np.concatenate(trained), offsets)

    @staticmethod
    def join(parts: Sequence[Rows]) -> Rows:
        """Several sets of rows as one."""
        shifts = np.cumsum([0, *(len(p.tokens) for p in parts[:-1])])
        offsets = np.concatenate([[0], *(p.offsets[1:] + s for p, s in zip(parts, shifts, strict=True))]).astype(np.int64)
        return Rows(np.concatenate([p.tokens for p in parts]), np.concatenate([p.trained for p in parts]), offsets)

    def take(self, index: Ints) -> Rows:
        """The rows of these numbers, in this order; a number may come more than once."""
        pieces = [(self.tokens[a:b], self.trained[a:b]) for a, b in zip(self.offsets[index], self.offsets[index + 1], strict=True)]
        offsets = np.concatenate([[0], np.cumsum([len(t) for t, _ in pieces])]).astype(np.int64)
        return Rows(np.concatenate([t for t, _ in pieces]), np.concatenate([f for _, f in pieces]), offsets)

    def save(self, path: Path) -> None:
        """One .npz file (plain arrays, no pickle)."""
        with atomic_writer(path, "wb") as handle:
            np.savez(handle, tokens=self.tokens, trained=self.trained, offsets=self.offsets)

    @staticmethod
    def load(path: Path) -> Rows:
        with np.load(path, allow_pickle=False) as arrays:
            return Rows(arrays["tokens"], arrays["trained"], arrays["offsets"])


@dataclass(frozen=True)
class Batch:
    """B bins of T tokens. All int64, shape (B, T).

    ``targets`` are the tokens to predict at each place, ``IGNORE`` where nothing is trained. ``documents`` numbers the rows
    within a bin, 0 for padding. ``positions`` start at 0 in each row.
    """

    ids: Ints
    targets: Ints
    documents: Ints
    positions: Ints


def pack(lengths: Ints, limit: int, order: Ints) -> list[list[int]]:
    """Fit rows into bins of ``limit`` tokens: best fit, longest first, within windows of the given order.

    Deterministic; within a window a bin wastes less than the shortest row left over.
    """
    bins: list[list[int]] = []
    for start in range(0, len(order), WINDOW):
        window = order[start : start + WINDOW]
        window = window[np.argsort(-lengths[window], kind="stable")]
        room: list[tuple[int, int]] = []  # (tokens left, bin), sorted
        for row in window.tolist():
            need = int(lengths[row])
            if need > limit:
                raise ValueError(f"row {row} has {need} tokens, more than {limit}")
            at = bisect_left(room, (need, -1))
            if at < len(room):
                left, which = room.pop(at)
                bins[which].append(row)
            else:
                left, which = limit, len(bins)
                bins.append([row])
            if left - need > 1:  # a row has at least two tokens
                insort(room, (left - need, which))
    return bins


class Batches:
    """Endless batches over ``rows``: ``batches[step]`` is a pure function of (rows, length, size, seed, step)."""

    def __init__(self, rows: Rows, *, length: int, size: int, seed: int, pad: int) -> None:
        self.rows, self.length, self.size, self.seed, self.pad = rows, length, size, seed, pad
        self._epoch: tuple[int, list[list[int]]] = (-1, [])
        first = self.bins(0)
        # Every epoch packs the same rows in another order, into about as many bins; the count of the first one is kept for all,
        # so that a step's epoch is known without packing those before it.
        self.bins_per_epoch = len(first)
        self.steps_per_epoch = max(1, self.bins_per_epoch // size)

    def bins(self, epoch: int) -> list[list[int]]:
        if self._epoch[0] != epoch:
            random = np.random.Generator(np.random.Philox(key=(self.seed << 32) + epoch))
            bins = pack(self.rows.lengths(), self.length, random.permutation(len(self.rows)))
            order = random.permutation(len(bins))
            self._epoch = (epoch, [bins[i] for i in order.tolist()])
        return self._epoch[1]

    def __getitem__(self, step: int) -> Batch:
        epoch, place = divmod(step, self.steps_per_epoch)
        bins = self.bins(epoch)
        chosen = [bins[(place * self.size + i) % len(bins)] for i in range(self.size)]
        return self.assemble(chosen)

    def assemble(self, bins: Sequence[Sequence[int]]) -> Batch:
        """The batch that holds these bins of rows."""
        B, T = len(bins), self.length
        ids = np.full((B, T), self.pad, dtype=np.int64)
        targets = np.full((B, T), IGNORE, dtype=np.int64)
        documents, positions = np.zeros((B, T), dtype=np.int64), np.zeros((B, T), dtype=np.int64)
        for b, rows in enumerate(bins):
            at = 0
            for number, row in enumerate(rows, 1):
                start, end = int(self.rows.offsets[row]), int(self.rows.offsets[row + 1])
                n = end - start
                tokens, trained = self.rows.tokens[start:end], self.rows.trained[start:end]
                ids[b, at : at + n] = tokens
                targets[b, at : at + n - 1] = np.where(trained[1:], tokens[1:], IGNORE)
                documents[b, at : at + n] = number
                positions[b, at : at + n] = np.arange(n)
                at += n
        return Batch(ids, targets, documents, positions)

    def waste(self) -> float:
        """The share of padding in the first epoch."""
        return 1 - len(self.rows.tokens) / (len(self.bins(0)) * self.length)
