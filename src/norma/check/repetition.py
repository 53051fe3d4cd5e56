"""Saying a thing twice, seen word by word: the same word in a row, or the same run of words again."""

from __future__ import annotations

from pydantic import Field

from norma.check.program import Outcome, Params, program
from norma.check.segment import Unit, units
from norma.spec.types import Item

_MAY_DOUBLE = frozenset({"had", "that"})


class RepetitionParams(Params):
    """How long a repeated run must be to count."""

    words: int = Field(default=3, ge=2, description="Length of a run of words that may not occur twice.")
    characters: int = Field(default=5, ge=2, description="Length of a run of Chinese characters that may not occur twice.")


@program("no_repetition", RepetitionParams, catches=("repetition",))
def no_repetition(item: Item, text: str, params: RepetitionParams) -> Outcome:
    """No word twice in a row and no run of words twice; score: the share of the words that is new."""
    found = units(text)
    repeated: set[int] = set()
    for i in range(1, len(found)):
        a, b = found[i - 1], found[i]
        # Single characters double by themselves (谢谢, 常常); numbers do in data (0 0 1).
        listed = text[a.start - 1 : a.start] in tuple("([{")  # (None, None) is a value
        if not listed and not b.han and a.text.lower() == b.text.lower() and b.text.lower() not in _MAY_DOUBLE and not b.text.isdigit():
            repeated.add(i)
        repeated |= _doubled_pair(found, i)
    runs = ([i for i, u in enumerate(found) if not u.han], params.words), ([i for i, u in enumerate(found) if u.han], params.characters)
    for positions, size in runs:
        repeated |= _seen_before(found, positions, size)
    spans = tuple((found[i].start, found[i].end) for i in sorted(repeated))
    note = f"{len(repeated)} of {len(found)} words repeat" if repeated else ""
    return Outcome(1 - len(repeated) / max(1, len(found)), spans, note)


def _doubled_pair(found: list[Unit], i: int) -> set[int]:
    """The second 您好 of 您好：您好; 讨论讨论 is a Chinese word form and may stand, a third time in a row may not."""
    first, second = found[max(0, i - 2) : i], found[i : i + 2]
    if len(first) < 2 or len(second) < 2 or not all(u.han for u in first + second):
        return set()
    if [u.text for u in first] != [u.text for u in second] or first[0].text == first[1].text:
        return set()
    third = [u.text for u in found[i + 2 : i + 4]]
    parted = second[0].start > first[1].end
    return {i, i + 1} if parted or third == [u.text for u in second] else set()


def _seen_before(found: list[Unit], positions: list[int], size: int) -> set[int]:
    """The units of every run of ``size`` units that stood before, without overlap."""
    first: dict[tuple[str, ...], int] = {}
    again: set[int] = set()
    for start in range(len(positions) - size + 1):
        run = tuple(found[p].text.lower() for p in positions[start : start + size])
        begin = first.setdefault(run, start)
        if start >= begin + size:
            again.update(positions[start : start + size])
    return again
