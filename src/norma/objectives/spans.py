"""Span corruption: spans of a text are replaced by sentinels, and what they hid is to be written behind the same sentinels.

    raw      Thank you for inviting me to your party last week
    source   Thank you <0> me to your party <1> week <end>
    target   <0> for inviting <1> last <end>

"Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer" (Raffel et al., 1910.10683, 3.1.4 and 3.3.4). As in
its code, a row begins with text that stays and ends with a span, and the target ends with the end token. How many tokens and spans are
hidden follows from the length alone, so that source and target have the same lengths in every row: none is padded or cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from norma.base.errors import NormaError

Ints = npt.NDArray[np.int64]
SHORTEST = 2  # tokens: one that stays, one that is hidden


@dataclass(frozen=True)
class SpanLengths:
    """The tokens of a row.

    Attributes:
        raw: what is read of the corpus.
        hidden, spans: how many of its tokens are hidden, in how many spans.
    """

    raw: int
    hidden: int
    spans: int

    @property
    def source(self) -> int:
        """What stays, the sentinels, the end token."""
        return self.raw - self.hidden + self.spans + 1

    @property
    def target(self) -> int:
        """What was hidden, the sentinels, the end token."""
        return self.hidden + self.spans + 1


def span_lengths(raw: int, *, rate: float = 0.15, mean: float = 3.0) -> SpanLengths:
    """What becomes of ``raw`` tokens when ``rate`` of them are hidden in spans of ``mean`` tokens (at least 1)."""
    if not (0 < rate < 1 and mean >= 1):
        raise ValueError(f"a rate of {rate} or a mean of {mean} makes no spans")
    if raw < SHORTEST:
        raise ValueError(f"{raw} tokens have no span beside which a token stays")
    hidden = min(max(round(raw * rate), 1), raw - 1)
    spans = min(max(round(hidden / mean), 1), hidden, raw - hidden)
    return SpanLengths(raw, hidden, spans)


def fitting(source: int, *, rate: float = 0.15, mean: float = 3.0) -> SpanLengths:
    """The longest row whose source has exactly ``source`` tokens. Raises NormaError where there is none."""
    found = longer = span_lengths(SHORTEST, rate=rate, mean=mean)
    while longer.source <= source:
        found, longer = longer, span_lengths(longer.raw + 1, rate=rate, mean=mean)
    if found.source == source:
        return found
    if found.source > source:
        raise NormaError(f"a source of {source} tokens is too short for spans", mend=f"Take at least {found.source}")
    # One more raw token adds at most two: itself, and a sentinel. Where it would add both, the sentinel is done without.
    return replace(longer, spans=longer.spans - 1)


def corrupt_spans(
    ids_N: Ints, lengths: SpanLengths, random: np.random.Generator, *, sentinels: Sequence[int], end: int
) -> tuple[Ints, Ints]:
    """(source, target) of a row of ``lengths.raw`` ids: every way to lay the spans is as likely as any other.

    Args:
        sentinels: ids of the tokens that stand for spans, in order; at least ``lengths.spans``.
        end: id of the token that both end with.
    """
    if len(ids_N) != lengths.raw:
        raise ValueError(f"{len(ids_N)} ids, {lengths.raw} were planned for")
    if len(sentinels) < lengths.spans:
        mend = "Shorten the sequences, or make the spans longer"
        raise NormaError(f"{lengths.spans} spans in a row, but the tokenizer has {len(sentinels)} sentinels", mend=mend)
    kept = _parts(lengths.raw - lengths.hidden, lengths.spans, random)
    hidden = _parts(lengths.hidden, lengths.spans, random)
    edges = np.cumsum(np.stack([kept, hidden], axis=1).ravel())  # the ends of: kept, hidden, kept, hidden, ...
    pieces = np.split(ids_N.astype(np.int64), edges[:-1])
    marks = [np.array([mark], dtype=np.int64) for mark in sentinels[: lengths.spans]]
    last = np.array([end], dtype=np.int64)
    source = [part for stays, mark in zip(pieces[::2], marks, strict=True) for part in (stays, mark)]
    target = [part for mark, hides in zip(marks, pieces[1::2], strict=True) for part in (mark, hides)]
    return np.concatenate([*source, last]), np.concatenate([*target, last])


def _parts(count: int, parts: int, random: np.random.Generator) -> Ints:
    """``count`` things in ``parts`` parts of at least one, each way as likely as any other."""
    cuts = np.sort(random.choice(count - 1, parts - 1, replace=False)) + 1 if parts > 1 else np.zeros(0, dtype=np.int64)
    return np.diff(np.concatenate([[0], cuts, [count]])).astype(np.int64)
