"""Sentence pairs: by hand, against all outcomes counted in plain lists, and by what must hold for every pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chisquare

from norma.base.random import keyed
from norma.objectives.masking import Masking, MaskTokens, mask_tokens
from norma.objectives.sentences import Pair, PairTokens, next_sentence, pairable, sentence_order, shares
from norma.text.packing import IGNORE
from norma.text.words import PARAGRAPH, SENTENCE, SPECIAL, WORD

CLS, SEP, BOS = 1, 2, 3
TOKENS = PairTokens(CLS, SEP)
Document = tuple[np.ndarray, np.ndarray]
BITS = {"p": PARAGRAPH | SENTENCE | WORD, "s": SENTENCE | WORD, "w": WORD, ".": 0, "x": SPECIAL}


def document(number: int, text: str) -> Document:
    """Token i of document n is n * 1000 + i; ``p`` begins a paragraph, ``s`` a sentence, ``w`` a word, ``x`` is special."""
    flags = np.array([BITS[c] for c in text], dtype=np.uint8)
    return np.where(flags == SPECIAL, BOS, number * 1000 + np.arange(len(text))), flags


class Script:
    """A generator whose every method gives the next value of a list."""

    def __init__(self, *draws: Any) -> None:
        self.draws = list(draws)

    def integers(self, *bounds: int) -> int:
        out = self.draws.pop(0)
        assert out < bounds[-1]
        return out

    def random(self) -> float:
        return self.draws.pop(0)

    def choice(self, of: np.ndarray) -> int:
        out = self.draws.pop(0)
        assert out in of, f"{out} is not among {of}"
        return out

    def binomial(self, n: int, p: float) -> int:
        assert p == 0.5
        return min(n, self.draws.pop(0))


def script(*draws: Any) -> Any:
    return Script(*draws)


# Sentences of document 1 begin at 0, 3, 5 (a paragraph) and 8; those of document 2 at 0, 2 and 4 (a paragraph).
BOOK = [document(1, "pwwswpwwswx"), document(2, "pwswpww")]


def test_a_real_next_sentence_by_hand() -> None:
    """Room for 7: from sentence 1 (token 3) on these are 3 to 9, with one paragraph border inside, at 5."""
    draws = script(3, 0.5, 3, 2, 0.7, 0, 0)  # short target, no; sentence at 3; divided before sentence 2; label 0; nothing cut
    pair = next_sentence(BOOK, 0, draws, length=10, tokens=TOKENS)
    assert pair.ids.tolist() == [CLS, 1003, 1004, SEP, 1005, 1006, 1007, 1008, 1009, SEP] and pair.label == 0
    assert pair.segments.tolist() == [0] * 4 + [1] * 6
    s, p = BITS["s"], BITS["p"]
    assert pair.flags.tolist() == [SPECIAL, s, WORD, SPECIAL, p, WORD, WORD, s, WORD, SPECIAL]


def test_a_random_next_sentence_by_hand() -> None:
    """The real B begins a paragraph, so the random one does; not the document's first, as there is another."""
    draws = script(3, 0.5, 3, 2, 0.2, 0, 4, 0, 0)
    pair = next_sentence(BOOK, 0, draws, length=10, tokens=TOKENS)
    assert pair.ids.tolist() == [CLS, 1003, 1004, SEP, 2004, 2005, 2006, SEP] and pair.label == 1
    # A short target of 2 tokens ends before the paragraph at 5: divided at a sentence, and B begins with a sentence, 2 or 4.
    draws = script(2, 0.05, 0, 1, 0.2, 0, 2, 0, 0)
    pair = next_sentence(BOOK, 0, draws, length=10, tokens=TOKENS)
    assert pair.ids.tolist() == [CLS, 1000, 1001, 1002, SEP, 2002, 2003, SEP] and pair.label == 1


def test_an_exchanged_pair_by_hand() -> None:
    pair = sentence_order(BOOK, 0, script(3, 0.5, 3, 2, 0.2, 0, 0), length=10, tokens=TOKENS)
    assert pair.ids.tolist() == [CLS, 1005, 1006, 1007, 1008, 1009, SEP, 1003, 1004, SEP] and pair.label == 1
    assert pair.segments.tolist() == [0] * 7 + [1] * 3
    pair = sentence_order(BOOK, 0, script(3, 0.5, 3, 2, 0.8, 0, 0), length=10, tokens=TOKENS)
    assert pair.ids.tolist() == [CLS, 1003, 1004, SEP, 1005, 1006, 1007, 1008, 1009, SEP] and pair.label == 0


def test_what_is_too_long_is_cut_by_hand() -> None:
    """A of 2 and B of 8 tokens in room for 5: B loses 5 from the longer one, two of them in front."""
    book = [document(1, "pwswwwwwww")]
    pair = sentence_order(book, 0, script(2, 0.5, 0, 1, 0.8, 0, 2), length=8, tokens=TOKENS)
    assert pair.ids.tolist() == [CLS, 1000, 1001, SEP, 1004, 1005, 1006, SEP]


@given(st.integers(1, 60), st.integers(1, 60), st.integers(2, 60))
@settings(max_examples=300, deadline=None)
def test_shares_against_the_loop(a: int, b: int, room: int) -> None:
    left, right = a, b
    while left + right > room:
        if left > right:
            left -= 1
        else:
            right -= 1
    assert shares(a, b, room) == (left, right) and min(left, right) >= 1


def test_cuts_are_a_coin_for_each_token() -> None:
    book, n = [document(1, "pwsww"), document(2, "p" + "w" * 40 + "s" + "w" * 40)], 2000
    fronts: Counter[int] = Counter()
    for step in range(n):
        pair = sentence_order(book, 1, keyed(5, step), length=43, tokens=TOKENS, short=0.0)
        a = pair.ids[1 : np.flatnonzero(pair.segments)[0] - 1] - 2000
        assert len(a) == 20
        fronts[int(a[0]) - (41 if pair.label else 0)] += 1
    assert set(fronts) <= set(range(22))
    expected = binom.pmf(np.arange(22), 21, 0.5) * n
    groups = [range(8), *([k] for k in range(8, 14)), range(14, 22)]
    assert chisquare([sum(fronts[k] for k in g) for g in groups], [sum(expected[k] for k in g) for g in groups]).pvalue > 1e-4


Outcome = tuple[tuple[int, ...], tuple[int, ...], int]


def cut(a: tuple[int, ...], b: tuple[int, ...], room: int) -> Counter[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What the papers' program makes of a pair, token by token, with the chance of each result."""
    if len(a) + len(b) <= room:
        return Counter({(a, b): 1.0})
    out: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    for shorter in ([(a[1:], b), (a[:-1], b)] if len(a) > len(b) else [(a, b[1:]), (a, b[:-1])]):
        for result, chance in cut(*shorter, room).items():
            out[result] += chance / 2
    return out


def outcomes(book: list[list[list[int]]], marks: list[list[bool]], index: int, room: int) -> dict[Outcome, float]:
    """Every pair for next-sentence prediction and its chance; documents are lists of sentences, ``marks`` says which begin a paragraph."""
    out: Counter[Outcome] = Counter()

    def flat(parts: list[list[int]]) -> tuple[int, ...]:
        return tuple(token for part in parts for token in part)

    def fill(parts: list[list[int]], wanted: int, least: int) -> list[list[int]]:
        n = least
        while n < len(parts) and len(flat(parts[:n])) < wanted:
            n += 1
        return parts[:n]

    def full(parts: list[list[int]], begin: list[int], wanted: int) -> list[int]:
        return [i for i in begin if len(flat(parts[i:])) >= wanted] or begin[:1]

    def add(a: tuple[int, ...], b: tuple[int, ...], label: int, chance: float) -> None:
        for pair, part in cut(a, b, room).items():
            out[(*pair, label)] += part * chance

    mine = book[index]
    begin = full(mine, [*range(len(mine) - 1)], room)
    for first in begin:
        chunk = fill(mine[first:], room, 2)
        borders = [i for i in range(1, len(chunk)) if marks[index][first + i]] or [*range(1, len(chunk))]
        for border in borders:
            chance, a = 1 / len(begin) / len(borders), flat(chunk[:border])
            add(a, flat(chunk[border:]), 0, chance / 2)
            for number in {*range(len(book))} - {index}:
                starts = [i for i in range(len(book[number])) if marks[number][i] or not marks[index][first + border]]
                starts = full(book[number], starts[1:] or starts, room - len(a))
                for start in starts:
                    b = flat(fill(book[number][start:], room - len(a), 1))
                    add(a, b, 1, chance / 2 / (len(book) - 1) / len(starts))
    return dict(out)


def parts(pair: Pair) -> Outcome:
    """(A, B, label); fails where the frame is not as it should be."""
    ids, middle = pair.ids.tolist(), int(np.flatnonzero(pair.segments)[0])
    assert ids[0] == CLS and ids[middle - 1] == ids[-1] == SEP and len(ids) == len(pair.segments) == len(pair.flags)
    assert pair.segments.tolist() == [0] * middle + [1] * (len(ids) - middle)
    assert np.flatnonzero(pair.flags & SPECIAL).tolist() == [0, middle - 1, len(ids) - 1]
    return tuple(ids[1 : middle - 1]), tuple(ids[middle:-1]), pair.label


def divided(book: list[Document]) -> tuple[list[list[list[int]]], list[list[bool]]]:
    lists: list[list[list[int]]] = [[] for _ in book]
    marks: list[list[bool]] = [[] for _ in book]
    for n, (ids, flags) in enumerate(book):
        for token, flag in zip(ids.tolist(), flags.tolist(), strict=True):
            if flag & SPECIAL:
                continue
            if not lists[n] or flag & SENTENCE:
                marks[n].append(not lists[n] or flag & PARAGRAPH > 0)
                lists[n].append([])
            lists[n][-1].append(token)
    return lists, marks


@pytest.mark.parametrize("texts", [["pspsspsss", "pspspps", "psssss"], ["xpwswwpw", "pwspwsw", "wwwsx"], ["pssw", "w"]])
def test_all_outcomes_come_with_their_chances(texts: list[str]) -> None:
    book = [document(n, text) for n, text in enumerate(texts, 1)]
    expected, n = outcomes(*divided(book), 0, 5), 6000
    assert sum(expected.values()) == pytest.approx(1) and sum(c for k, c in expected.items() if k[2] == 0) == pytest.approx(0.5)
    found = Counter(parts(next_sentence(book, 0, keyed(7, step), length=8, tokens=TOKENS, short=0.0)) for step in range(n))
    assert set(found) <= set(expected)
    common = [key for key, chance in expected.items() if chance * n > 8]
    observed, wanted = [found[k] for k in common], [expected[k] * n for k in common]
    if n - sum(wanted) > 1:
        observed, wanted = [*observed, n - sum(observed)], [*wanted, n - sum(wanted)]
    assert len(common) >= 4 and chisquare(observed, np.array(wanted) * n / sum(wanted)).pvalue > 1e-4


@st.composite
def books(draw: st.DrawFn) -> list[Document]:
    """Two to five documents, the first with two sentences at least; special tokens anywhere."""
    text = st.text("xppsswwww.", min_size=1, max_size=60)
    first = draw(text) + "w" + draw(st.sampled_from("sp")) + draw(text)
    return [document(n, t) for n, t in enumerate([first, *draw(st.lists(text, max_size=3)), draw(text) + "w"], 1)]


MAKERS = st.sampled_from([next_sentence, sentence_order])


@given(books(), MAKERS, st.integers(5, 80), st.sampled_from([0.0, 0.1, 1.0]), st.integers(0, 2**40))
@settings(max_examples=500, deadline=None)
def test_what_holds_for_every_pair(book: list[Document], make: Callable[..., Pair], length: int, short: float, seed: int) -> None:
    before = [(i.copy(), f.copy()) for i, f in book]
    pair = make(book, 0, keyed(seed, 1, 2), length=length, tokens=TOKENS, short=short)
    a, b, label = parts(pair)
    assert a and b and len(pair.ids) <= length and pair.ids.dtype == pair.segments.dtype == np.int64
    plain = [ids[flags & SPECIAL == 0].tolist() for ids, flags in book]
    for part, number in ((a, 1), (b, b[0] // 1000)):
        at = plain[number - 1].index(part[0])
        assert list(part) == plain[number - 1][at : at + len(part)], "a part is a run of one document's tokens"
    if make is next_sentence:
        assert (b[0] // 1000 != 1) == bool(label), "a pair within one document is never labelled random"
    else:
        assert b[0] // 1000 == 1 and (b[-1] < a[0]) == bool(label) and (a[-1] < b[0]) == (not label)
    kept = {int(token): int(flag) for ids, flags in book for token, flag in zip(ids, flags, strict=True)}
    assert [kept[t] for t in (*a, *b)] == pair.flags[(pair.flags & SPECIAL) == 0].tolist(), "flags go with their tokens"
    if len(pair.ids) < length:  # nothing was cut
        first, second = (b, a) if make is sentence_order and label else (a, b)
        lists, marks = divided(book)
        begins = {sentence[0]: mark for d, m in zip(lists, marks, strict=True) for sentence, mark in zip(d, m, strict=True)}
        assert first[0] in begins and second[0] in begins
        chunk = [*first, *second]
        if second[0] // 1000 == 1:
            assert chunk == plain[0][plain[0].index(first[0]) :][: len(chunk)]
            assert begins[second[0]] or not any(begins.get(t, False) for t in chunk[1:]), "a paragraph border goes before others"
    again = make(book, 0, keyed(seed, 1, 2), length=length, tokens=TOKENS, short=short)
    assert parts(again) == (a, b, label)
    assert all(np.array_equal(x, y) for one, other in zip(book, before, strict=True) for x, y in zip(one, other, strict=True))


@pytest.mark.parametrize("make", [next_sentence, sentence_order])
def test_labels_are_even_and_short_pairs_as_rare_as_asked(make: Callable[..., Pair]) -> None:
    book, n = [document(k, "ps" * 60) for k in (1, 2, 3)], 3000
    pairs = [make(book, 1, keyed(11, step), length=43, tokens=TOKENS) for step in range(n)]
    for count, chance in ((sum(p.label for p in pairs), 0.5), (sum(len(p.ids) < 43 for p in pairs), 0.1 * 38 / 39)):
        low, high = binom.interval(1 - 1e-6, n, chance)
        assert low <= count <= high


def test_the_pair_is_masked_as_one_document() -> None:
    pair = next_sentence([document(1, "pwsw" * 9), document(2, "pwsw" * 9)], 0, keyed(0, 0), length=43, tokens=TOKENS, short=0.0)
    masks = MaskTokens(4, (0, 1, 2, 3), 3000)
    ids, targets = mask_tokens(pair.ids, np.ones_like(pair.ids), pair.flags, tokens=masks, masking=Masking(), random=keyed(0, 0))
    assert (targets != IGNORE).sum() == round(0.15 * (len(pair.ids) - 3)) and parts(Pair(ids, pair.segments, pair.flags, pair.label))
    assert np.array_equal(np.where(targets != IGNORE, targets, ids), pair.ids)


def test_which_documents_can_be_divided() -> None:
    assert [pairable(document(1, t)[1]) for t in ("pws", "wp", "pww", "p", "", "xpwx", "xxsw")] == [True, True, *[False] * 5]


def test_what_is_refused() -> None:
    book, random = [document(1, "pws"), document(2, "")], keyed(0, 3)
    with pytest.raises(ValueError, match="room for 5"):
        sentence_order(book, 0, random, length=4, tokens=TOKENS)
    with pytest.raises(ValueError, match="document 1 has no second sentence"):
        sentence_order(book, 1, random, length=9, tokens=TOKENS)
    for others in (book, book[:1]):
        with pytest.raises(ValueError, match="second document that is not empty"):
            next_sentence(others, 0, script(2, 0.5, 0, 1, 0.2, 0), length=9, tokens=TOKENS)
    assert parts(next_sentence([*book, document(3, "w")], 0, script(2, 0.5, 0, 1, 0.2, 0, 0, 0, 0), length=9, tokens=TOKENS))[1] == (3000,)
