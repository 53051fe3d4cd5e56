"""One verdict of several people's marks: gold first, then the majority; a tie is unsure, never a coin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from norma.labels.rows import Label
from norma.spec.types import Status


def consensus(labels: Iterable[Label]) -> Status:
    """The verdict that most marks of one answer under one rule give. ``unsure`` and ``error`` are missing data; without marks: unsure."""
    marks = [m for m in labels if m.verdict not in (Status.UNSURE, Status.ERROR)]
    marks = [m for m in marks if m.gold] or marks
    counts = Counter(m.verdict for m in marks).most_common(2)
    if not counts or (len(counts) == 2 and counts[0][1] == counts[1][1]):
        return Status.UNSURE
    return Status(counts[0][0])
