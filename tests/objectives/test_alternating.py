"""Alternating objectives: turns, shifts and whole batches, by hand, against loops, and by what must hold."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from norma.base.random import keyed
from norma.objectives.alternating import Turns, alternate, keep_first, masked_next_token, masked_rows, next_token
from norma.objectives.masking import Masking, MaskTokens, Unit
from norma.text.packing import IGNORE
from norma.text.words import SPECIAL, WORD

MASK = 4
TOKENS = MaskTokens(MASK, (0, 1, 2, 3), 60)
X = IGNORE


def test_turns_by_step() -> None:
    turns = Turns("step", every=3)
    assert [masked_rows(turns, seed=5, step=n, rows=2).tolist() for n in range(6)] == [[False] * 2, [False] * 2, [True] * 2] * 2
    assert all(masked_rows(Turns("step", every=1), seed=5, step=n, rows=1).all() for n in range(3))


def test_turns_by_ratio() -> None:
    n = 3000
    for share in (0.0, 0.25, 1.0):
        rows = np.array([masked_rows(Turns("ratio", share=share), seed=1, step=step, rows=4) for step in range(n)])
        assert (rows == rows[:, :1]).all(), "a step is masked or it is not"
        low, high = binom.interval(1 - 1e-6, n, share)
        assert low <= rows[:, 0].sum() <= high
    order = np.array([masked_rows(Turns("ratio"), seed=1, step=step, rows=1)[0] for step in range(n)])
    low, high = binom.interval(1 - 1e-6, n - 1, 0.5)
    assert low <= (order[1:] == order[:-1]).sum() <= high, "steps know nothing of each other"


@pytest.mark.parametrize(("share", "rows"), [(0.5, 8), (0.3, 5), (0.0625, 8), (1.0, 3), (0.0, 3)])
def test_turns_by_row(share: float, rows: int) -> None:
    n = 2000
    table = np.array([masked_rows(Turns("row", share=share), seed=1, step=step, rows=rows) for step in range(n)])
    counts = table.sum(axis=1)
    exact = share * rows
    assert set(counts.tolist()) <= {int(np.floor(exact)), int(np.ceil(exact))}
    low, high = binom.interval(1 - 1e-6, n, exact - np.floor(exact))
    assert low <= (counts - np.floor(exact)).sum() <= high
    if 0 < share < 1:
        assert chisquare(table.sum(axis=0)).pvalue > 1e-4, "every row is masked as often"


BY: list[Literal["step", "ratio", "row"]] = ["step", "ratio", "row"]


@given(st.sampled_from(BY), st.integers(1, 5), st.floats(0, 1), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_turns_are_a_function_of_seed_and_step(by: Any, every: int, share: float, seed: int, step: int, rows: int) -> None:
    turns = Turns(by, every, share)
    first, again = masked_rows(turns, seed=seed, step=step, rows=rows), masked_rows(turns, seed=seed, step=step, rows=rows)
    assert first.shape == (rows,) and first.dtype == np.bool_ and np.array_equal(first, again)


def test_what_is_refused() -> None:
    for wrong in ({"every": 0}, {"share": -0.1}, {"share": 1.1}, {"share": float("nan")}):
        with pytest.raises(ValueError, match="turns come every"):
            Turns(**wrong)  # type: ignore[arg-type]


def test_shifts_by_hand() -> None:
    ids, documents = np.array([10, 11, 12, 20, 21, 0, 0]), np.array([1, 1, 1, 2, 2, 0, 0])
    assert next_token(ids, documents).tolist() == [11, 12, X, 21, X, X, X]
    hidden = np.array([10, X, 12, 20, 21, X, X])
    assert masked_next_token(hidden, documents).tolist() == [X, 12, X, 21, X, X, X], "those at a document's first place are lost"
    flags = np.array([1, 0, 1, 3, 0, 0, 0], dtype=np.uint8)
    assert keep_first(flags, documents).tolist() == [9, 0, 1, 11, 0, 8, 0] and flags[0] == 1


def test_a_mixed_batch_by_hand() -> None:
    """The same row twice, causal and masked, where every token that can be hidden is."""
    ids, documents = np.array([[10, 11, 12, 20, 21, 0]] * 2), np.array([[1, 1, 1, 2, 2, 0]] * 2)
    flags = np.full((2, 6), WORD, dtype=np.uint8)
    flags[:, 1] |= SPECIAL
    everything = Masking(1.0, masked=1.0, replaced=0.0)
    randoms = [keyed(0, 0, row) for row in range(2)]
    batch = alternate(ids, documents, flags, np.array([False, True]), randoms, tokens=TOKENS, masking=everything)
    assert batch.ids.tolist() == [[10, 11, 12, 20, 21, 0], [10, 11, MASK, 20, MASK, 0]]
    assert batch.targets.tolist() == [[11, 12, X, 21, X, X], [X, 12, X, 21, X, X]]
    assert batch.causal.tolist() == [True, False]


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random, B, T = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.integers(1, 4)), draw(st.integers(2, 30))
    documents = np.sort(random.integers(1, 5, size=(B, T)), axis=1)
    documents[:, T - draw(st.integers(0, T - 1)) :] = 0
    return random.integers(5, 60, size=(B, T)), documents, random.choice([0, 1, 3, 8, 9], size=(B, T)).astype(np.uint8)


UNITS: list[Unit] = ["token", "word", "span"]


@given(batches(), st.integers(0, 2**40), st.sampled_from(UNITS), st.floats(0.05, 1), st.integers(0, 2**4 - 1))
@settings(max_examples=300, deadline=None)
def test_what_holds_for_every_batch(
    material: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int, unit: Unit, rate: float, chosen: int
) -> None:
    ids, documents, flags = material
    B, T = ids.shape
    masked = np.array([chosen >> b & 1 for b in range(B)], dtype=np.bool_)
    before = [a.copy() for a in material]

    def make(rows: list[int]) -> Any:
        randoms = [keyed(seed, 3, row) for row in rows]
        return alternate(ids[rows], documents[rows], flags[rows], masked[rows], randoms, tokens=TOKENS, masking=Masking(rate, unit=unit))

    batch = make([*range(B)])
    assert np.array_equal(batch.causal, ~masked)
    for b in range(B):
        restored = batch.ids[b].tolist()
        for t in range(T):
            first = t == 0 or documents[b, t] != documents[b, t - 1]
            target = None if t == 0 else batch.targets[b, t - 1]
            if masked[b]:
                if documents[b, t] == 0 or first or flags[b, t] & SPECIAL:
                    assert batch.ids[b, t] == ids[b, t] and target in (None, X), "what cannot or must not be predicted is not hidden"
                elif target != X:
                    assert target == ids[b, t]
                    restored[t] = target
            else:
                assert target is None or target == (X if first or documents[b, t] == 0 else ids[b, t])
        assert batch.targets[b, T - 1] == X and restored == ids[b].tolist(), "ids and targets together are the original"
        hidden = {int(d) for d in documents[b] if d} if masked[b] else set()
        for document in hidden:
            inside = np.flatnonzero(documents[b] == document)
            able = [t for t in inside[1:] if not flags[b, t] & SPECIAL]
            count = sum(batch.targets[b, t - 1] != X for t in able)
            assert count == max(1, round(rate * len(able))) if able and unit == "token" else (count > 0) == bool(able)
    halves = [make([b]) for b in range(B)]  # a rank that holds one row makes of it what the whole batch does
    assert np.array_equal(np.concatenate([h.ids for h in halves]), batch.ids)
    assert np.array_equal(np.concatenate([h.targets for h in halves]), batch.targets)
    assert all(np.array_equal(a, b) for a, b in zip(material, before, strict=True))


def test_one_attention_mask_for_a_batch_that_mixes_both() -> None:
    """What the docstring says of Mask(causal=True, prefix=~causal): causal rows see the left, masked rows their whole document."""
    torch = pytest.importorskip("torch")
    from norma.nn.mask import Mask

    documents = np.array([[1, 1, 2, 2, 0]] * 2)
    ids, flags = np.full((2, 5), 9), np.zeros((2, 5), dtype=np.uint8)
    batch = alternate(ids, documents, flags, np.array([False, True]), [keyed(0, 0, r) for r in range(2)], tokens=TOKENS, masking=Masking())
    prefix = torch.from_numpy(~batch.causal)[:, None].expand(2, 5)
    allowed = Mask(causal=True, prefix=prefix, documents=torch.from_numpy(documents)).allowed(torch.arange(5)[None], causal=True)[:, 0]
    same = documents[0][:, None] == documents[0][None]
    assert np.array_equal(allowed[0].numpy(), same & np.tri(5, dtype=bool)) and np.array_equal(allowed[1].numpy(), same)
