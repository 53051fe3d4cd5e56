"""Pairs of text for sentence-level losses: does B really follow A, and which of the two comes first.

    a document ─→ some whole sentences in a row ─→ divided at a paragraph, or else a sentence ─→ A, B ──┐ coin
    another document ─→ some whole sentences ─────────────────────────────────────────────────→ random B ┴─→ [CLS] A [SEP] B [SEP], label

Next-sentence prediction: "BERT" (Devlin et al., 1810.04805, section 3.1, Task #2, and appendix A.2); label 1 is a B of another document.
Sentence-order prediction: "ALBERT" (Lan et al., 1909.11942, section 3.1); label 1 is A and B exchanged.
The pair then goes through :func:`norma.objectives.masking.mask_tokens` as one document, for the loss on words.

Letters: N tokens of a document, T of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from norma.text.words import PARAGRAPH, SENTENCE, SPECIAL

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Flags = npt.NDArray[np.uint8]
BORDERS = 3  # [CLS] and two [SEP]


class Documents(Protocol):
    """What is asked for documents: ``documents[i]`` is (token ids, flags), both (N,); see :mod:`norma.text.words` for the flags."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[npt.NDArray[np.integer], Flags]: ...


@dataclass(frozen=True)
class PairTokens:
    """Ids of the tokens that frame a pair."""

    cls: int
    sep: int


@dataclass(frozen=True)
class Pair:
    """[CLS] A [SEP] B [SEP], not padded.

    Attributes:
        ids: (T,) int64.
        segments: (T,) int64, 0 up to the first [SEP], 1 from there on.
        flags: (T,) uint8, those of the documents; SPECIAL for the frame.
        label: 0: B follows A in one document. 1: it does not.
    """

    ids: Ints
    segments: Ints
    flags: Flags
    label: int


def pairable(flags_N: Flags) -> bool:
    """Whether a document can be divided: it has a second sentence. Only such ones may be asked for a pair."""
    return len(_starts(flags_N[flags_N & SPECIAL == 0])) > 1


def next_sentence(
    documents: Documents, index: int, random: np.random.Generator, *, length: int, tokens: PairTokens, short: float = 0.1
) -> Pair:
    """A pair for next-sentence prediction of at most ``length`` tokens from document ``index``, labels 0 and 1 with equal chances.

    A and the real B are neighbours: whole sentences are taken from a random one on until they fill the target, and divided at one of
    the paragraph borders inside, or at a sentence border where there is none. A random B comes from another document, never from
    this one, is filled up alike, and begins like the real one with a paragraph or a sentence, not with its document's opening where
    that can be helped: else the border would betray the label. The target is ``length`` - 3; with chance ``short`` it is an even draw
    from 2 up to that, so that short inputs are known too. What is too long is then cut, see :func:`shares`.

    BERT's program walks through a document; here each call draws its place, so that a step needs no memory. A place from which the
    target can be filled goes before others. To give long documents their due, draw ``index`` in proportion to their tokens.

    Raises ValueError for a document that is not :func:`pairable`, without another document to draw from, or ``length`` below 5.
    """
    text = _read(documents, index)
    target = _target(length, short, random)
    first, middle, last = _divide(text, target, random, index)
    a = text.slice(first, middle)
    if random.random() >= 0.5:
        return _join(a, text.slice(middle, last), 0, length, tokens, random)
    other = _another(documents, index, random)
    starts = other.sentences[other.paragraphs] if text.paragraphs[middle] else other.sentences
    wanted = target - len(a[0])
    start = int(np.searchsorted(other.sentences, _pick(starts[1:] if len(starts) > 1 else starts, len(other.ids), wanted, random)))
    return _join(a, other.slice(start, other.reach(start, wanted)), 1, length, tokens, random)


def sentence_order(
    documents: Documents, index: int, random: np.random.Generator, *, length: int, tokens: PairTokens, short: float = 0.1
) -> Pair:
    """A pair for sentence-order prediction: A and B as :func:`next_sentence` divides them, with equal chances exchanged (label 1)."""
    text = _read(documents, index)
    first, middle, last = _divide(text, _target(length, short, random), random, index)
    a, b = text.slice(first, middle), text.slice(middle, last)
    return _join(b, a, 1, length, tokens, random) if random.random() < 0.5 else _join(a, b, 0, length, tokens, random)


def shares(a: int, b: int, room: int) -> tuple[int, int]:
    """How many tokens of A and of B are kept in ``room``: what taking one at a time from the longer (from B when equal) comes to.

    ``truncate_seq_pair`` of google-research/bert and albert, which tosses a coin for each token taken: from the front or the back.
    So the number taken from the front is binomial, and that is how :func:`next_sentence` draws it.
    """
    kept = min(a, max(room - b, (room + 1) // 2))
    return kept, min(b, room - kept)


@dataclass(frozen=True)
class _Text:
    """A document without its special tokens: ids and flags (N,), places where sentences begin, which of these begin paragraphs (S,)."""

    ids: Ints
    flags: Flags
    sentences: Ints
    paragraphs: Bools

    def slice(self, first: int, last: int) -> tuple[Ints, Flags]:
        """Ids and flags of the sentences ``first`` to ``last`` - 1."""
        end = int(self.sentences[last]) if last < len(self.sentences) else len(self.ids)
        return self.ids[self.sentences[first] : end], self.flags[self.sentences[first] : end]

    def reach(self, first: int, wanted: int) -> int:
        """The sentence before which to stop for at least ``wanted`` tokens from ``first`` on; the end where there are fewer."""
        return max(first + 1, int(np.searchsorted(self.sentences, self.sentences[first] + wanted)))


def _starts(flags_N: Flags) -> Ints:
    begins = flags_N & (SENTENCE | PARAGRAPH) > 0
    begins[:1] = True
    return np.flatnonzero(begins)


def _read(documents: Documents, index: int) -> _Text:
    ids, flags = documents[index]
    kept = flags & SPECIAL == 0
    ids, flags = ids[kept].astype(np.int64), flags[kept]
    sentences = _starts(flags)
    paragraphs = flags[sentences] & PARAGRAPH > 0
    paragraphs[:1] = True
    return _Text(ids, flags, sentences, paragraphs)


def _another(documents: Documents, index: int, random: np.random.Generator) -> _Text:
    """A document drawn evenly from the others; from there on, the first one that is not empty."""
    count = len(documents)
    first = int(random.integers(count - 1)) if count > 1 else 0
    for step in range(count - 1):
        text = _read(documents, (index + 1 + (first + step) % (count - 1)) % count)
        if len(text.ids):
            return text
    raise ValueError("a random next sentence needs a second document that is not empty")


def _target(length: int, short: float, random: np.random.Generator) -> int:
    if length < BORDERS + 2:
        raise ValueError(f"a pair needs room for {BORDERS + 2} tokens, not {length}")
    drawn = int(random.integers(2, length - BORDERS + 1))
    return drawn if random.random() < short else length - BORDERS


def _divide(text: _Text, target: int, random: np.random.Generator, index: int) -> tuple[int, int, int]:
    """(first sentence of A, first of B, first after B)."""
    count = len(text.sentences)
    if count < 2:
        raise ValueError(f"document {index} has no second sentence: see pairable")
    first = int(np.searchsorted(text.sentences, _pick(text.sentences[:-1], len(text.ids), target, random)))
    last = max(first + 2, text.reach(first, target))
    borders = np.arange(first + 1, last)
    inside = borders[text.paragraphs[first + 1 : last]]
    return first, int(random.choice(inside if len(inside) else borders)), last


def _pick(starts: Ints, end: int, wanted: int, random: np.random.Generator) -> int:
    """One of these places, from which ``wanted`` tokens follow; where there is none such, the first."""
    enough = starts[end - starts >= wanted]
    return int(random.choice(enough if len(enough) else starts[:1]))


def _join(
    a: tuple[Ints, Flags], b: tuple[Ints, Flags], label: int, length: int, tokens: PairTokens, random: np.random.Generator
) -> Pair:
    kept = shares(len(a[0]), len(b[0]), length - BORDERS)
    cuts = [int(random.binomial(len(part[0]) - keep, 0.5)) for part, keep in zip((a, b), kept, strict=True)]
    (a_ids, a_flags), (b_ids, b_flags) = ([x[cut : cut + keep] for x in part] for part, cut, keep in zip((a, b), cuts, kept, strict=True))
    sep, frame = [tokens.sep], np.array([SPECIAL], dtype=np.uint8)
    ids = np.concatenate([[tokens.cls], a_ids, sep, b_ids, sep]).astype(np.int64)
    segments = np.repeat(np.array([0, 1], dtype=np.int64), [kept[0] + 2, kept[1] + 1])
    return Pair(ids, segments, np.concatenate([frame, a_flags, frame, b_flags, frame]), label)
