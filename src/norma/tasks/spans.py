"""Answers found in a text: long texts as windows that overlap, and the best span over all of them.

question, context ─→ [CLS] question [SEP] window of the context [SEP], each ``stride`` tokens after the one before ─→ start, end scores
─→ best start <= end over the windows' places in the context ─┬─ its score above the null span's (place 0) + threshold ─→ text
                                                               └─ else ─→ "" (SQuAD 2.0, as in BERT, 1810.04805, 4.3)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.tasks.encode import backend
from norma.train.reading import Reading

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """A question with a part of its context.

    Attributes:
        row: number of the question.
        first: place of the context's first token.
        offsets: (start, end) characters in the context of the tokens from ``first`` on.

    """

    row: int
    reading: Reading
    first: int
    offsets: tuple[tuple[int, int], ...]

    def places(self, start: int, end: int) -> tuple[int, int]:
        """First and last place of the characters ``start`` to ``end``; (0, 0), the null span, where they are not all in the window."""
        if not self.offsets or start < self.offsets[0][0] or end > self.offsets[-1][1]:
            return 0, 0
        first = next((i for i, (_, b) in enumerate(self.offsets) if b > start), None)
        last = next((i for i in range(len(self.offsets) - 1, -1, -1) if self.offsets[i][0] < end), None)
        return (0, 0) if first is None or last is None or first > last else (self.first + first, self.first + last)


@dataclass(frozen=True)
class Found:
    """An answer: its text, where it stands, and by how much it is above the null span (log odds)."""

    text: str
    start: int
    margin: float


def windows(model: LanguageModel, rows: Sequence[Mapping[str, Any]], *, length: int, stride: int) -> list[Window]:
    """All windows of all questions, of at most ``length`` tokens; neighbours share ``length`` less what the question takes less ``stride``.

    Raises NormaError for a question that leaves no room.
    """
    length = min(length, model.config.max_positions)
    made = backend(model.tokenizer)
    extra, found = made.num_special_tokens_to_add(True), []
    for number, row in enumerate(rows):
        made.no_truncation()
        asked = len(made.encode(row["question"], add_special_tokens=False).ids)
        room = length - extra - asked
        if room < 8:
            what = f"the question has {asked} tokens, with {length} in all {max(room, 0)} are left for the text"
            raise NormaError(what, where=row.get("id", number), mend="Raise length, or shorten the question")
        made.enable_truncation(length, stride=max(0, room - min(stride, room)), strategy="only_second")
        whole = made.encode(row["question"], row["context"])
        for piece in [whole, *whole.overflowing]:
            places = [i for i, part in enumerate(piece.sequence_ids) if part == 1]
            first = places[0] if places else len(piece.ids)
            offsets = tuple(piece.offsets[i] for i in places)
            found.append(Window(number, Reading(list(piece.ids), list(piece.type_ids)), first, offsets))
    return found


def targets(window: Window, answers: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """What the window is to say: the first given answer that has a place in the text."""
    placed = [a for a in answers if a["start"] >= 0 and a["text"]]
    return window.places(placed[0]["start"], placed[0]["start"] + len(placed[0]["text"])) if placed else (0, 0)


def answers_of(
    rows: Sequence[Mapping[str, Any]],
    made: Sequence[Window],
    scores: Sequence[Floats],
    *,
    longest: int = 30,
) -> list[Found]:
    """The best span of each question over its windows (T, 2); ``margin`` is against the null span of the window it is smallest in.

    ``longest``: most tokens of an answer.
    """
    best: list[tuple[float, str, int]] = [(-np.inf, "", -1)] * len(rows)
    null = [np.inf] * len(rows)
    for window, score_T2 in zip(made, scores, strict=True):
        n, row = len(window.offsets), window.row
        null[row] = min(null[row], float(score_T2[0].sum()))
        if not n:
            continue
        start, end = score_T2[window.first : window.first + n].T
        sums = np.triu(start[:, None] + end[None, :], 0)
        allowed = np.triu(np.ones((n, n), dtype=bool)) & ~np.triu(np.ones((n, n), dtype=bool), longest)
        flat = int(np.where(allowed, sums, -np.inf).argmax())
        i, j = divmod(flat, n)
        if sums[i, j] > best[row][0]:
            a, b = window.offsets[i][0], window.offsets[j][1]
            text = rows[row]["context"][a:b]
            best[row] = (float(sums[i, j]), text.strip(), a + len(text) - len(text.lstrip()))
    return [Found(text, start, value - null[row]) for row, (value, text, start) in enumerate(best)]


def null_threshold(margins: Sequence[float], answerable: Sequence[float], unanswerable: Sequence[float]) -> float:
    """The margin above which an answer is given so that the mean score is highest (evaluate-v2.0.py's ``best_f1_thresh``).

    Args:
        margins: of each question, see :class:`Found`.
        answerable: the score if the question is answered.
        unanswerable: the score if it is not: 1 where there is no answer, else 0.
    """
    order = np.argsort(np.asarray(margins))
    gain = np.asarray(unanswerable)[order] - np.asarray(answerable)[order]
    totals = np.r_[0.0, np.cumsum(gain)]  # silent on the first k
    k = int(totals.argmax())
    ranked = np.asarray(margins)[order]
    if k == 0:
        return float(ranked[0] - 1.0)
    return float(ranked[-1] + 1.0) if k == len(ranked) else float((ranked[k - 1] + ranked[k]) / 2)
