"""Masked language modelling: by hand, against a loop over lists, and by what must hold for every row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from norma.base.random import keyed
from norma.objectives.masking import Masking, MaskTokens, Unit, mask_tokens, span_lengths, take
from norma.text.packing import IGNORE
from norma.text.words import SPECIAL, WORD, flags_of

MASK, END, PAD = 4, 5, 0
TOKENS = MaskTokens(MASK, (PAD, 1, 2, 3, END), 60)
UNITS: list[Unit] = ["token", "word", "span"]


class Script:
    """A generator that draws what the test says, in its order."""

    def __init__(self, *draws: list[Any]) -> None:
        self.draws = [np.array(d) for d in draws]

    def random(self, size: int) -> np.ndarray:
        assert len(self.draws[0]) == size
        return self.draws.pop(0)

    def integers(self, high: int, size: int) -> np.ndarray:
        out = self.random(size)
        assert out.max() < high
        return out

    def permutation(self, n: int) -> np.ndarray:
        return self.random(n)


def script(*draws: list[Any]) -> Any:
    return Script(*draws)


def row(*documents: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ids, documents, flags: ``w`` begins a word, ``.`` goes on with it, ``s`` is special; two places of padding at the end."""
    text = "".join(documents)
    flags = np.array([{"w": WORD, ".": 0, "s": SPECIAL | WORD}[c] for c in text] + [0, 0], dtype=np.uint8)
    numbers = np.array([n for n, d in enumerate(documents, 1) for _ in d] + [0, 0], dtype=np.int64)
    ids = np.array([END if c == "s" else 10 + i for i, c in enumerate(text)] + [PAD, PAD], dtype=np.int64)
    return ids, numbers, flags


def test_single_tokens_by_hand() -> None:
    """Ten candidates at 30%: three. In the order drawn the units 7, 0, 4 come first; fates are mask, another token, as it was."""
    ids, documents, flags = row("wwwwwwwwwws")
    fates = [0.85, 0, 0, 0, 0.95, 0, 0, 0.79, 0, 0, 0, 0, 0]
    draws = script(fates, [20] + [0] * 12, [7, 0, 4, 1, 2, 3, 5, 6, 8, 9])
    out, targets = mask_tokens(ids, documents, flags, tokens=TOKENS, masking=Masking(0.3), random=draws)
    assert out.tolist() == [26, 11, 12, 13, 14, 15, 16, 4, 18, 19, END, PAD, PAD]  # ordinary tokens are 6, 7, ...: number 20 is 26
    assert targets.tolist() == [10, *[IGNORE] * 3, 14, *[IGNORE] * 2, 17, *[IGNORE] * 5]


def test_whole_words_by_hand() -> None:
    """Words of 2, 1, 3 and 2 tokens, two documents: budgets round(.5 * 6) = 3 and round(.5 * 2) = 1.

    Drawn first: the word of 3, which spends the first budget. Then the second document's word, longer than its budget, is taken
    because it is that document's first. The others find nothing left.
    """
    ids, documents, flags = row("w.ww..", "w.")
    draws = script([0.0] * 10, [0] * 10, [2, 3, 0, 1])
    out, targets = mask_tokens(ids, documents, flags, tokens=TOKENS, masking=Masking(0.5, unit="word"), random=draws)
    assert out.tolist() == [10, 11, 12, MASK, MASK, MASK, MASK, MASK, PAD, PAD]
    assert targets.tolist() == [IGNORE] * 3 + [13, 14, 15, 16, 17] + [IGNORE] * 2


def test_a_word_that_does_not_fit_is_passed_over() -> None:
    assert take([1, 2, 0], [1] * 3, [1, 2, 2], [0] * 3, [False, True, True], [3]) == [0, 1, -1]
    assert take([1, 0, 2], [1] * 3, [2, 2, 1], [0] * 3, [False, True, True], [3]) == [-1, 1, 2]
    assert take([1, 0, 2], [1] * 3, [2, 9, 1], [0] * 3, [False, True, True], [3]) == [-1, 1, -1], "the first is taken whatever it costs"


def test_spans_by_hand() -> None:
    """Spans end at the document's end, at a special token, at a span already taken, and where the budget is spent."""
    follows = [False, True, True, True, True, True]
    assert take([2, 0, 1, 3, 4, 5], [5, 1, 2, 1, 1, 1], [1] * 6, [0] * 6, follows, [9]) == [0, 0, 2, 2, 4, 5]
    assert take([1, 0, 2, 3, 4, 5], [9] * 6, [1] * 6, [0] * 6, follows, [3]) == [-1, 1, 1, 1, -1, -1]
    two = [False, True, True, False, True, True]
    assert take([1, 4, 0, 2, 3, 5], [9] * 6, [1] * 6, [0, 0, 0, 1, 1, 1], two, [9, 2]) == [0, 1, 1, -1, 4, 4]
    # P(n) ~ .8^n: n <= 1 below .2 / (1 - .8^10) = .2241, n <= 2 below .36 / .8926 = .4033. All tokens share the fate of the span's first.
    ids, documents, flags = row("ww.ww")
    draws = script([0.0, 0.95, 0.1, 0.1, 0.1, 0.1, 0.1], [7] * 7, [0.0, 0.3, 0.0, 0.0], [1, 0, 2, 3])
    out, targets = mask_tokens(ids, documents, flags, tokens=TOKENS, masking=Masking(0.6, unit="span"), random=draws)
    assert targets.tolist() == [IGNORE, 11, 12, 13, *[IGNORE] * 3]
    assert out.tolist() == ids.tolist(), "fate .95: as they were, all three"


def slow(
    ids: list[int], documents: list[int], flags: list[int], masking: Masking, random: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Lists of words of places, and a walk over them. The same draws in the same order."""
    T = len(ids)
    fates, others = random.random(T), random.integers(len([i for i in range(60) if i > 5]), size=T)
    words: list[list[int]] = []
    for i in range(T):
        if documents[i] == 0 or flags[i] & 8:
            continue
        joined = i > 0 and documents[i - 1] == documents[i] and not flags[i - 1] & 8
        if masking.unit != "token" and joined and not flags[i] & 1:
            words[-1].append(i)
        else:
            words.append([i])
    if not words:
        return ids, [IGNORE] * T
    lengths = [1] * len(words)
    if masking.unit == "span":
        chances = [0.8**n for n in range(1, 11)]
        for w, u in enumerate(random.random(len(words))):
            lengths[w] = next((n for n in range(1, 11) if u < sum(chances[:n]) / sum(chances)), 10)
    out, targets, spent, covered = list(ids), [IGNORE] * T, {}, set()
    for w in random.permutation(len(words)).tolist():
        document = documents[words[w][0]]
        budget = max(1, round(masking.rate * sum(d == document and not f & 8 for d, f in zip(documents, flags, strict=True))))
        place = words[w][0] - 1
        for v in range(w, min(w + lengths[w], len(words))):
            tokens = words[v]
            if v in covered or documents[tokens[0]] != document or tokens[0] != place + 1:
                break
            if document in spent and spent[document] + len(tokens) > budget:
                break
            covered.add(v)
            spent[document] = spent.get(document, 0) + len(tokens)
            for i in tokens:
                fate = fates[words[w][0]] if masking.unit == "span" else fates[i]
                targets[i] = ids[i]
                out[i] = MASK if fate < masking.masked else int(others[i]) + 6 if fate < masking.masked + masking.replaced else ids[i]
            place = tokens[-1]
    return out, targets


@st.composite
def rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lengths = draw(st.lists(st.integers(1, 40), min_size=0, max_size=6))
    padding = draw(st.integers(0, 9)) or (not lengths)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    documents = np.repeat([*range(1, len(lengths) + 1), 0], [*lengths, padding])
    flags = random.choice([0, 0, 1, 1, 3, 7, 8, 9], size=len(documents)).astype(np.uint8)
    return np.where(flags & 8 > 0, END, random.integers(6, 60, size=len(documents))), documents, flags


SEEDS = st.integers(0, 2**40)
SHARES = st.sampled_from([(0.8, 0.1), (1.0, 0.0), (0.0, 0.0), (0.3, 0.7)])


@given(rows(), SEEDS, st.sampled_from(UNITS), st.floats(0.01, 1.0), SHARES)
@settings(max_examples=300, deadline=None)
def test_against_the_loop(
    material: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int, unit: Unit, rate: float, shares: tuple[float, float]
) -> None:
    masking = Masking(rate, masked=shares[0], replaced=shares[1], unit=unit)
    out, targets = mask_tokens(*material, tokens=TOKENS, masking=masking, random=keyed(seed, 0))
    expected = slow(*(a.tolist() for a in material), masking, keyed(seed, 0))
    assert (out.tolist(), targets.tolist()) == expected


@given(rows(), SEEDS, st.sampled_from(UNITS), st.floats(0.01, 1.0))
@settings(max_examples=300, deadline=None)
def test_what_holds_for_every_row(material: tuple[np.ndarray, np.ndarray, np.ndarray], seed: int, unit: Unit, rate: float) -> None:
    ids, documents, flags = material
    before = [a.copy() for a in material]
    masking = Masking(rate, unit=unit)
    out, targets = mask_tokens(ids, documents, flags, tokens=TOKENS, masking=masking, random=keyed(seed, 1, 2))
    hidden = targets != IGNORE
    assert np.array_equal(np.where(hidden, targets, out), ids), "ids and targets together are the original"
    candidates = (documents > 0) & (flags & SPECIAL == 0)
    assert not (hidden & ~candidates).any(), "special tokens and padding are left alone"
    assert np.isin(out[hidden & (out != ids)], [MASK, *TOKENS.ordinary]).all() and not np.isin(TOKENS.ordinary, [0, 1, 2, 3, 4, 5]).any()
    assert all(np.array_equal(a, b) for a, b in zip(material, before, strict=True)) and out is not ids
    for number in np.unique(documents[candidates]):
        inside = candidates & (documents == number)
        budget, count = max(1, round(rate * inside.sum())), int((hidden & inside).sum())
        assert count == budget if unit == "token" else count >= 1
        if unit != "token" and count > budget:  # one word alone may be longer than the budget
            places = np.flatnonzero(hidden & inside)
            assert (np.diff(places) == 1).all() and not (flags[places[1:]] & WORD).any()
    if unit != "token":  # a word is hidden whole or not at all
        joined = candidates[1:] & candidates[:-1] & (documents[1:] == documents[:-1]) & (flags[1:] & WORD == 0)
        assert (hidden[1:] == hidden[:-1])[joined].all()
    again = mask_tokens(ids, documents, flags, tokens=TOKENS, masking=masking, random=keyed(seed, 1, 2))
    assert np.array_equal(out, again[0]) and np.array_equal(targets, again[1])


@pytest.mark.parametrize("unit", UNITS)
def test_every_token_is_hidden_as_often_as_it_should_be(unit: Unit) -> None:
    """2,000 keys over one row; 100 candidates, 15. Intervals hold all but 1 in 10^6 each."""
    n, (ids, documents, flags) = 2000, row("w" * 100)
    hidden, fates = np.zeros(102, dtype=int), np.zeros(3, dtype=int)
    for step in range(n):
        out, targets = mask_tokens(ids, documents, flags, tokens=TOKENS, masking=Masking(unit=unit), random=keyed(1, step, use="mask"))
        places = np.flatnonzero(targets != IGNORE)
        assert len(places) == 15
        hidden[places] += 1
        places = places[[0]] if unit == "span" else places  # tokens of one span share their fate: one of them tells
        kept = out[places] == ids[places]
        fates += [(out[places] == MASK).sum(), (~kept & (out[places] != MASK)).sum(), kept.sum()]
    # A span is entered from its left: a document's first few words are in fewer spans than the rest (the paper's scheme has it so).
    low, high = binom.interval(1 - 1e-6, n, 0.15)
    even = hidden[:100] if unit != "span" else hidden[15:85]
    if unit != "span":
        assert low <= even.min() and even.max() <= high
    assert abs(even.mean() / n - 0.15) < (0.01 if unit == "span" else 1e-9)
    another = 0.1 * 53 / 54  # one replacement in 54 is the token itself
    for count, chance in zip(fates, (0.8, another, 0.2 - another), strict=True):
        low, high = binom.interval(1 - 1e-6, fates.sum(), chance)
        assert low <= count <= high


def test_replacements_are_drawn_evenly_from_ordinary_tokens() -> None:
    ids, documents, flags = row("w" * 200)
    masking = Masking(1.0, masked=0.0, replaced=1.0)
    drawn = [mask_tokens(ids, documents, flags, tokens=TOKENS, masking=masking, random=keyed(2, step))[0][:200] for step in range(40)]
    counts = np.bincount(np.concatenate(drawn), minlength=60)
    assert not counts[:6].any() and chisquare(counts[6:]).pvalue > 1e-4


def test_spans_are_as_long_as_spanbert_says() -> None:
    """Geometric with p = 0.2 among 1 to 10 words; the mean is 3.8 (section 3.1), which cut draws (mean 4.46) would miss."""
    lengths = span_lengths((np.arange(100_000) + 0.5) / 100_000, Masking(unit="span"))
    chances = np.array([0.2 * 0.8 ** (n - 1) for n in range(1, 11)])
    assert np.abs(np.bincount(lengths, minlength=11)[1:] - 100_000 * chances / chances.sum()).max() <= 1
    assert len(np.bincount(lengths)) == 11 and round(float(lengths.mean()), 1) == 3.8
    assert span_lengths(np.array([0.0, 1 - 2**-53]), Masking(unit="span")).tolist() == [1, 10]


def test_rates_over_the_steps() -> None:
    falling = Masking(0.3, final_rate=0.15)
    assert [round(falling.at(step, 4).rate, 10) for step in range(4)] == [0.3, 0.25, 0.2, 0.15]
    assert falling.at(9, 4).rate == 0.15 and falling.at(0, 1).rate == 0.3 and falling.at(2, 4).final_rate is None
    assert Masking(0.2).at(3, 4) == Masking(0.2)


def test_a_documents_mask_does_not_depend_on_what_it_is_packed_with() -> None:
    """A document of one token loses it always, one of seven round(.15 * 7) = 1, one of 20 three: together or alone."""
    for documents in (("w",), ("w" * 7,), ("w" * 20,), ("w", "w" * 7, "w" * 20, "sws")):
        ids, numbers, flags = row(*documents)
        targets = mask_tokens(ids, numbers, flags, tokens=TOKENS, masking=Masking(), random=keyed(0, 0))[1]
        counts = [int((targets[numbers == n] != IGNORE).sum()) for n in range(1, len(documents) + 1)]
        assert counts == [{1: 1, 7: 1, 20: 3, 3: 1}[len(d)] for d in documents]


def test_chinese_words_are_hidden_whole() -> None:
    """One token a character, as Chinese vocabularies have it; the flags know that 北京大学 and 我们 are words."""
    pytest.importorskip("jieba")
    text = "我们喜欢北京大学。"
    flags, ids = flags_of(text, np.arange(1, len(text) + 1)), np.arange(10, 10 + len(text))
    seen = set()
    for step in range(60):
        masking = Masking(0.5, unit="word")
        targets = mask_tokens(ids, np.ones_like(ids), flags, tokens=TOKENS, masking=masking, random=keyed(0, step))[1]
        runs = "".join(c if t != IGNORE else " " for c, t in zip(text, targets.tolist(), strict=True)).split()
        assert all(run[0] in "我喜北。" and run[-1] in "们欢学。" for run in runs), runs
        seen.update(runs)
    assert {"我们", "北京大学"} <= seen


def test_narrow_types_of_a_shard_are_read() -> None:
    ids, documents, flags = row("w" * 20)
    out, targets = mask_tokens(ids.astype(np.uint16), documents, flags, tokens=TOKENS, masking=Masking(), random=keyed(0, 0))
    assert out.dtype == targets.dtype == np.int64 and targets.min() == IGNORE


RATES = [{"rate": 0.0}, {"rate": 1.5}, {"rate": float("nan")}, {"final_rate": 0.0}]
WRONG = [*RATES, {"masked": 0.8, "replaced": 0.3}, {"masked": -0.1}, {"span_stop": 1.0}]


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at most 1|together|spans need"):
        Masking(**wrong)  # type: ignore[arg-type]


def test_a_vocabulary_without_ordinary_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="special tokens only"):
        _ = MaskTokens(1, (0,), 2).ordinary
