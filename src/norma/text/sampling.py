"""Text for a tokenizer to learn from: spread evenly over a corpus, as much as memory allows.

    files ─→ every n-th document, then every n-th + 1, ... ─→ until all are read or the words are MOST_LETTERS long ─→ texts

A trainer of byte pairs keeps every different word, and some 75 bytes for each of its bytes. English has few words; Chinese is
written without spaces, so that every clause is a new one, and 60 MB of both took 2.5 GB. Merges of the most frequent pairs, which
a vocabulary is made of, are learnt from a sample as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

SLICE = 8_000_000  # bytes of a corpus that one pass over it takes
MOST_LETTERS = 6_000_000  # bytes of different words: half a gigabyte while merges are learnt
_WORD = re.compile(r"\w+")


def read_texts(files: Sequence[Path]) -> Iterator[str]:
    """The ``text`` of text rows, or every message's content of question rows, from the corpus files of a run."""
    for path in files:
        with Path(path).open(encoding="utf-8") as handle:
            for line in handle:
                yield _text(line)


def sample_texts(files: Sequence[Path], most: int = MOST_LETTERS) -> Iterator[str]:
    """As :func:`read_texts`, in an order that spreads over the corpus, until different words add up to ``most`` bytes."""
    passes = max(1, round(sum(path.stat().st_size for path in files) / SLICE))
    seen: set[str] = set()
    letters = 0
    for turn in range(passes):
        number = 0
        for path in files:
            with path.open("rb") as handle:
                for line in handle:
                    number += 1
                    if number % passes != turn:
                        continue
                    text = _text(line)
                    new = set(_WORD.findall(text)) - seen
                    seen |= new
                    letters += sum(len(word.encode()) for word in new)
                    if letters > most:
                        return
                    yield text


def _text(line: str | bytes) -> str:
    row = json.loads(line)
    return str(row["text"]) if "text" in row else "\n".join(m["content"] for m in row["messages"])
