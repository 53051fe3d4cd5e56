"""Which side a document stands on, and that nothing of the validation side is seen in training.

A document's side is a hash of its id and the seed: it depends on no order and on no other document.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Literal

Side = Literal["train", "validation"]


def chance(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but ``parts``."""
    raw = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "replace")).digest()
    return int.from_bytes(raw[:7], "big") / 2**56


def split(document: str, seed: int, validation_share: float, *, use: str | None = None) -> Side:
    """The side of a document. ``use`` names a division of what stands on one side already: the same hash would hold nothing out of it."""
    parts = (seed, document) if use is None else (seed, use, document)
    return "validation" if chance("split", *parts) < validation_share else "train"


def key(text: str) -> str:
    """Text up to case, punctuation and white space: what counts as the same sentence."""
    return " ".join(re.findall(r"\w+", text.lower()))


_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
GRAM = 4  # a sentence is looked for by its first words; a shorter one is a phrase that anybody may use


def leaks(candidates: Sequence[tuple[str, str]], training: Iterable[str]) -> set[int]:
    """Indices of ``(name, sentence)`` pairs whose dotted name or sentence occurs in a text of ``training``.

    Names are compared part by part (``a.b`` occurs in ``x.a.b.c``), sentences by their words (at least ``GRAM``).
    """
    names: dict[str, list[int]] = {}
    grams: dict[tuple[str, ...], list[tuple[int, str]]] = {}
    for i, (name, sentence) in enumerate(candidates):
        names.setdefault(name, []).append(i)
        words = key(sentence).split()
        if len(words) >= GRAM:
            grams.setdefault(tuple(words[:GRAM]), []).append((i, f" {' '.join(words)} "))
    found: set[int] = set()
    for text in training:
        for dotted in set(_DOTTED.findall(text)):
            parts = dotted.split(".")
            for a in range(len(parts)):
                for b in range(a + 1, len(parts) + 1):
                    found.update(names.get(".".join(parts[a:b]), ()))
        words = key(text).split()
        for gram in grams.keys() & set(zip(words, words[1:], words[2:], words[3:], strict=False)):
            joined = f" {' '.join(words)} "
            found.update(i for i, sentence in grams[gram] if sentence in joined)
    return found


class Novelty:
    """How much of a text was not seen before, by runs of words: boilerplate repeats itself with other names in it."""

    RUN = 4

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}  # of words, in the order met: a run is one exact integer, cheaper than any hash
        self.seen: set[int] = set()

    def runs(self, text: str) -> set[int]:
        """The runs of ``RUN`` words in ``text``; empty when it is shorter."""
        numbers = self.numbers
        words = [numbers.setdefault(word, len(numbers)) for word in re.findall(r"\w+", text.lower())]
        return {(a << 75) | (b << 50) | (c << 25) | d for a, b, c, d in zip(words, words[1:], words[2:], words[3:], strict=False)}

    def share(self, runs: set[int]) -> float:
        """The share (0 to 1) of runs not seen before; 1.0 when there are none."""
        return len(runs - self.seen) / len(runs) if runs else 1.0

    def learn(self, runs: set[int]) -> None:
        self.seen |= runs
