"""Masked language modelling: hide some tokens of a sequence, predict them from the rest.

    ids, documents, flags ─→ candidates ─→ units: tokens, words or runs of words ─→ drawn until a document's budget is spent
                                                                                       │
    (ids with 80% mask token, 10% another token, 10% as they were;  targets) ←─────────┘

"BERT" (Devlin et al., 1810.04805, section 3.1, Task #1). Masks are dynamic (RoBERTa, 1907.11692, section 4.1): nothing is stored, a row's
mask is a function of its generator, see :func:`norma.base.random.keyed`. What a Chinese or English word is, the flags know.

Letters: T tokens of a packed sequence, U units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from norma.text.packing import IGNORE
from norma.text.words import SPECIAL, WORD

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Flags = npt.NDArray[np.uint8]
Unit = Literal["token", "word", "span"]


@dataclass(frozen=True)
class MaskTokens:
    """What may stand in a hidden token's place.

    Args:
        mask: the id of the mask token.
        special: ids that are never put in; the mask token need not be among them.
        size: how many ids the vocabulary has.
    """

    mask: int
    special: tuple[int, ...]
    size: int

    @cached_property
    def ordinary(self) -> Ints:
        """The ids that replacements are drawn from."""
        ids = np.setdiff1d(np.arange(self.size, dtype=np.int64), np.array([*self.special, self.mask], dtype=np.int64))
        if not len(ids):
            raise ValueError("a vocabulary of special tokens only has nothing to replace a token by")
        return ids


@dataclass(frozen=True)
class Masking:
    """How much is hidden, and how.

    Args:
        rate: the share of a document's candidates that is predicted, over 0 up to 1.
        final_rate: at the last step; the rate goes there in a straight line (GPT-BERT, 2410.24159, goes from 0.3 down to 0.15).
        masked: the share of the predicted tokens that become the mask token; BERT's 0.8.
        replaced: the share that becomes another token, drawn evenly; BERT's 0.1. What is left stays as it was.
        unit: ``token``; ``word``, all tokens of a word together; ``span``, runs of whole words (SpanBERT, 1907.10529, section 3.1).
        span_stop: p of the geometric distribution of a span's length in words.
        longest_span: in words. Longer draws are drawn again, not cut: only so is the mean 3.8, as the paper says.
    """

    rate: float = 0.15
    final_rate: float | None = None
    masked: float = 0.8
    replaced: float = 0.1
    unit: Unit = "token"
    span_stop: float = 0.2
    longest_span: int = 10

    def __post_init__(self) -> None:
        if not all(0 < rate <= 1 for rate in (self.rate, self.rate if self.final_rate is None else self.final_rate)):
            raise ValueError(f"a masking rate is over 0 and at most 1, not {self.rate} and {self.final_rate}")
        if self.masked < 0 or self.replaced < 0 or self.masked + self.replaced > 1 + 1e-9:
            raise ValueError(f"shares of masked and replaced tokens are at least 0 and together at most 1: {self.masked}, {self.replaced}")
        if not 0 < self.span_stop < 1 or self.longest_span < 1:
            raise ValueError(f"spans need 0 < p < 1 and a length of 1 at least, not {self.span_stop} and {self.longest_span}")

    def at(self, step: int, steps: int) -> Masking:
        """This masking with the constant rate of ``step`` among ``steps``: ``rate`` at the first, ``final_rate`` at the last."""
        if self.final_rate is None:
            return self
        share = min(1.0, step / max(1, steps - 1))
        return replace(self, rate=(1 - share) * self.rate + share * self.final_rate, final_rate=None)


def mask_tokens(
    ids_T: Ints, documents_T: Ints, flags_T: Flags, *, tokens: MaskTokens, masking: Masking, random: np.random.Generator
) -> tuple[Ints, Ints]:
    """(ids, targets) of one packed sequence, both new, int64 (T,): what the model reads, and what it is to predict.

    Of each document's c candidates (tokens that are neither padding nor flagged SPECIAL) round(rate * c), at least one, are drawn and
    become targets; all other targets are ``IGNORE``. So packing changes no document's chances. (BERT's program counts its three special
    tokens into c.) Units are taken in random order, each whole; one that does not fit into what is left of the budget is passed over,
    but the first one drawn is taken even so, else a short document's long words would never be predicted.

    A word begins at a WORD flag and goes on to the next; it ends at special tokens and at the document's end. Spans do, too, and end
    where another span or the budget does. Which of the three fates a hidden token has is drawn for each token, for spans once for
    all their tokens, as in the papers. A replacement may happen to be the token itself.

    Args:
        documents_T: number of each token's document, its tokens side by side; 0 for padding.
        flags_T: bits of each token, see :mod:`norma.text.words`; only WORD and SPECIAL count here.
        masking: ``rate`` is used; for one that changes over the steps, pass ``masking.at(step, steps)``.
    """
    ids, targets = ids_T.astype(np.int64), np.full(len(ids_T), IGNORE, dtype=np.int64)
    candidate = (documents_T > 0) & (flags_T & SPECIAL == 0)
    # All draws are made whatever the choice: a change of shares or rate leaves the other draws as they were.
    fate, other = random.random(len(ids)), tokens.ordinary[random.integers(len(tokens.ordinary), size=len(ids))]
    places = np.flatnonzero(candidate)
    if not len(places):
        return ids, targets
    leader = _draw(places, documents_T, flags_T, masking, random)
    hidden = leader >= 0
    fate = fate[leader]  # where nothing is hidden this is any token's fate, and unused
    targets[hidden] = ids[hidden]
    ids = np.where(hidden & (fate < masking.masked), tokens.mask, ids)
    return np.where(hidden & (fate >= masking.masked) & (fate < masking.masked + masking.replaced), other, ids), targets


def _draw(places: Ints, documents_T: Ints, flags_T: Flags, masking: Masking, random: np.random.Generator) -> Ints:
    """(T,): for each hidden token the place whose fate it shares, -1 for those that are not hidden."""
    documents = documents_T[places]
    follows = np.zeros(len(places), dtype=np.bool_)  # stands right after the candidate before it, in one document
    follows[1:] = (np.diff(places) == 1) & (documents[1:] == documents[:-1])
    begins = np.ones(len(places), dtype=np.bool_) if masking.unit == "token" else ~follows | (flags_T[places] & WORD > 0)
    first_U = np.flatnonzero(begins)
    lengths_U = span_lengths(random.random(len(first_U)), masking) if masking.unit == "span" else np.ones(len(first_U), dtype=np.int64)
    numbers, home = np.unique(documents, return_inverse=True)
    budgets = [max(1, round(masking.rate * count)) for count in np.bincount(home, minlength=len(numbers)).tolist()]
    sizes_U = np.diff(np.append(first_U, len(places)))
    order = random.permutation(len(first_U))
    starts = take(order.tolist(), lengths_U.tolist(), sizes_U.tolist(), home[first_U].tolist(), follows[first_U].tolist(), budgets)

    start = np.repeat(np.array(starts, dtype=np.int64), sizes_U)
    leader = np.full(len(documents_T), -1, dtype=np.int64)
    taken = start >= 0
    leader[places[taken]] = places[first_U[start[taken]]] if masking.unit == "span" else places[taken]
    return leader


def span_lengths(draws: npt.NDArray[np.float64], masking: Masking) -> Ints:
    """Lengths of 1 to ``longest_span`` words, P(n) in proportion to (1 - p)^n, from even draws in [0, 1)."""
    going_on = 1 - masking.span_stop
    below = 1 - draws * (1 - going_on**masking.longest_span)
    lengths: Ints = np.clip(np.ceil(np.log(below) / np.log(going_on)), 1, masking.longest_span).astype(np.int64)
    return lengths


def take(order: list[int], lengths: list[int], sizes: list[int], home: list[int], follows: list[bool], budgets: list[int]) -> list[int]:
    """Spend the budgets on spans of units, first come first served.

    Args:
        order: the units, in the order in which they are tried as the first of a span.
        lengths, sizes: units in a span that begins at this unit; tokens of this unit. (U,)
        home: the document of each unit, which says the budget it is paid from.
        follows: whether the unit stands right behind the one before, in the same document.
        budgets: tokens that each document may spend.

    Returns for each unit the first unit of the span it was taken in, -1 where it was not.
    """
    starts, left, fresh = [-1] * len(order), list(budgets), [True] * len(budgets)
    for start in order:
        document = home[start]
        if left[document] <= 0:
            continue
        for unit in range(start, min(start + lengths[start], len(order))):
            outside = unit > start and not follows[unit]
            if outside or starts[unit] >= 0 or (sizes[unit] > left[document] and not fresh[document]):
                break
            starts[unit] = start
            left[document] -= sizes[unit]
            fresh[document] = False
    return starts
