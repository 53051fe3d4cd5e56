"""Packed sequences: an epoch reads every token once, in an order that only data, seed and number decide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from norma.base.errors import NormaError
from norma.text.sequences import Packed, Sequences
from norma.text.shards import Made, Shards, ShardWriter
from norma.text.words import SPECIAL, WORD

PAD = 65_000


def corpus(folder: Path, lengths: list[int], shard_tokens: int = 40) -> Shards:
    """The tokens are 0, 1, 2, ... through the whole corpus, so that each says where it stood; flags token % 8."""
    with ShardWriter(folder, Made("", 65_001, PAD, True, ""), shard_tokens=shard_tokens) as writer:
        at = 0
        for n in lengths:
            tokens = np.arange(at, at + n)
            writer.add(tokens, (tokens % 8).astype(np.uint8), np.array([n]), n)
            at += n
    return Shards(folder)


def slow(ids: list[int], first: set[int]) -> tuple[list[int], list[int]]:
    """Documents and positions of a sequence, a token at a time. ``first``: the tokens that begin a document."""
    documents, positions = [], []
    for place, token in enumerate(ids):
        if token == PAD:
            documents.append(0)
            positions.append(0)
        elif place == 0 or token in first:
            documents.append((documents or [0])[-1] + 1)
            positions.append(0)
        else:
            assert token == ids[place - 1] + 1, "within a document the tokens follow one another"
            documents.append(documents[-1])
            positions.append(positions[-1] + 1)
    return documents, positions


@given(st.lists(st.integers(0, 60), min_size=1, max_size=25).filter(any), st.integers(1, 40), st.integers(0, 2**40), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_an_epoch_reads_every_token_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], length: int, seed: int, epoch: int
) -> None:
    shards = corpus(tmp_path_factory.mktemp("c") / "s", lengths)
    sequences = Sequences(shards, length=length, seed=seed)
    count = len(sequences)
    rows = sequences.rows(np.arange(epoch * count, (epoch + 1) * count))
    real = rows.documents > 0
    assert sorted(rows.ids[real].tolist()) == list(range(shards.tokens))
    assert rows.ids[~real].tolist() == [PAD] * (count * length - shards.tokens) and (~real).sum() < length
    first = {sum(lengths[:i]) for i in range(len(lengths))}
    for row in range(count):
        documents, positions = slow(rows.ids[row].tolist(), first)
        assert rows.documents[row].tolist() == documents and rows.positions[row].tolist() == positions
    begins = real & (rows.positions == 0)
    assert ((rows.flags == rows.ids % 8) | ~real | begins).all()
    assert (rows.flags[begins] == (rows.ids[begins] % 8 | WORD)).all() and (rows.flags[~real] == SPECIAL).all()


def test_by_hand(tmp_path: Path) -> None:
    # Documents 0-4, 5-6, 7 in a ring of 8 tokens, three at a time: two sequences of three and one of two.
    sequences = Sequences(corpus(tmp_path / "s", [5, 2, 1], shard_tokens=6), length=3, seed=0)
    assert len(sequences) == 3
    rows = sequences.rows(np.arange(3))
    lists = (getattr(rows, name).tolist() for name in ("ids", "documents", "positions"))
    found = {tuple(ids): (documents, positions) for ids, documents, positions in zip(*lists, strict=True)}
    shift = next(s for s in range(8) if tuple((s + i) % 8 for i in range(3)) in found and tuple((s + 3 + i) % 8 for i in range(3)) in found)
    assert set(found) == {tuple((shift + 3 * b + i) % 8 for i in range(3)) for b in range(2)} | {((shift + 6) % 8, (shift + 7) % 8, PAD)}
    by_hand = {  # for every stretch of three tokens in the ring
        (0, 1, 2): ([1, 1, 1], [0, 1, 2]),
        (3, 4, 5): ([1, 1, 2], [0, 1, 0]),
        (4, 5, 6): ([1, 2, 2], [0, 0, 1]),
        (5, 6, 7): ([1, 1, 2], [0, 1, 0]),
        (6, 7, 0): ([1, 2, 3], [0, 0, 0]),
        (7, 0, 1): ([1, 2, 2], [0, 0, 1]),
        (1, 2, 3): ([1, 1, 1], [0, 1, 2]),
        (2, 3, 4): ([1, 1, 1], [0, 1, 2]),
    }
    assert sum(ids in by_hand for ids in found) == 2 and all(by_hand.get(ids, value) == value for ids, value in found.items())


def equal(one: Packed, other: Packed) -> bool:
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ("ids", "documents", "positions", "flags"))


@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_the_same_batch_for_any_number_of_ranks(tmp_path_factory: pytest.TempPathFactory, step: int, size: int, ranks: int) -> None:
    shards = corpus(tmp_path_factory.mktemp("c") / "s", [13, 30, 1, 7, 22])
    whole = Sequences(shards, length=8, seed=5).batch(step, size)
    assert whole.ids.shape == (size, 8) and whole.ids.dtype == whole.documents.dtype == whole.positions.dtype == np.int64
    parts = [Sequences(shards, length=8, seed=5).batch(step, size, rank, ranks) for rank in range(ranks)]
    assert max(len(p.ids) for p in parts) - min(len(p.ids) for p in parts) <= 1
    assert equal(Packed(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("ids", "documents", "positions", "flags"))), whole)


def test_steps_lay_the_epochs_end_to_end(tmp_path: Path) -> None:
    sequences = Sequences(corpus(tmp_path / "s", [100, 3, 57]), length=10, seed=1)
    assert len(sequences) == 16
    batches = {step: sequences.batch(step, 6) for step in (7, 2, 0, 5, 1, 4, 3, 6)}  # in any order
    ids = np.concatenate([batches[step].ids for step in range(8)])
    assert sorted(ids[:16].ravel().tolist()) == sorted(ids[16:32].ravel().tolist()) == list(range(160))
    assert equal(sequences.batch(2, 6), batches[2]) and equal(Sequences(sequences.shards, length=10, seed=1).batch(2, 6), batches[2])


def test_epochs_and_seeds_differ(tmp_path: Path) -> None:
    shards = corpus(tmp_path / "s", [50] * 40, shard_tokens=700)
    sequences = Sequences(shards, length=20, seed=3)
    epochs = [sequences.rows(np.arange(100 * e, 100 * e + 100)).ids for e in range(20)]
    assert len({e.tobytes() for e in epochs}) == 20
    # Also the places at which documents are cut differ: of 20 shifts modulo 20, about 13 are different ones.
    assert len({int(e[0, 0]) % 20 for e in epochs}) > 6
    other = Sequences(shards, length=20, seed=4).rows(np.arange(100)).ids
    assert (other == epochs[0]).mean() < 0.05


def test_a_batch_comes_from_the_whole_corpus(tmp_path: Path) -> None:
    sequences = Sequences(corpus(tmp_path / "s", [600] * 100, shard_tokens=5000), length=60, seed=0)
    tenth = np.concatenate([sequences.batch(step, 10).ids[:, 0] // 6000 for step in range(100)])
    assert chisquare(np.bincount(tenth, minlength=10)[:10]).pvalue > 0.9, "an epoch holds each tenth as often"
    # In each batch of ten: the number of different tenths is that of ten random draws, 6.5 on average.
    different = [len(set((sequences.batch(step, 10).ids[:, 0] // 6000).tolist())) for step in range(100)]
    assert 6.2 < np.mean(different) < 7.0


def test_waste(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shards = corpus(tmp_path / "s", rng.integers(1, 200, 500).tolist(), shard_tokens=10_000)
    sequences = Sequences(shards, length=128, seed=0)
    rows = sequences.rows(np.arange(len(sequences)))
    assert (rows.documents == 0).mean() < 0.01 and 60_000 > shards.tokens > 45_000


def test_what_is_refused(tmp_path: Path) -> None:
    shards = corpus(tmp_path / "s", [5])
    with pytest.raises(ValueError, match="length 0"):
        Sequences(shards, length=0, seed=0)
    with pytest.raises(ValueError, match="seed -1"):
        Sequences(shards, length=4, seed=-1)
    for step, size, rank, ranks in [(-1, 1, 0, 1), (0, 0, 0, 1), (0, 1, 1, 1)]:
        with pytest.raises(ValueError, match="no batch"):
            Sequences(shards, length=4, seed=0).batch(step, size, rank, ranks)
    with pytest.raises(NormaError, match="no tokens to train on"):
        Sequences(corpus(tmp_path / "empty", [0, 0]), length=4, seed=0)
