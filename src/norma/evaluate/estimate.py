"""What a check will take, before it is made: prompts left to ask, tokens, time, money.

    items + journal ─→ how many are left ─→ the first few are asked (and kept: nothing is asked twice) ─→ seconds and tokens an answer
                                         ─→ Estimate: at most so many tokens, about so long, at most so much money

Tokens to read are counted from characters, as no tokenizer is known for a foreign server: a Chinese character is one, other text is a
token per 3 characters, both on the high side for the tokenizers in use. Tokens to write are bounded by the limit that was asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from norma.evaluate.sampling import Answerer, Journal, journaled, missing
from norma.spec import Item

PROBED = 2  # answers that are timed on an endpoint: the first one may wake a sleeping server


@dataclass(frozen=True)
class Estimate:
    """``read`` and ``written``: upper bounds in tokens; ``seconds`` is None where nothing was timed, ``cost`` where no price is known."""

    prompts: int
    left: int
    read: int
    written: int
    seconds: float | None
    cost: float | None

    def sentence(self) -> str:
        """One line for people."""
        if not self.left:
            return f"{self.prompts} prompts, all answered already: nothing is asked"
        parts = [f"{self.left} of {self.prompts} prompts to ask", f"at most {self.read:,} tokens to read and {self.written:,} to write"]
        if self.seconds is not None:
            parts.append(f"about {duration(self.seconds)}")
        parts.append("price unknown (--price IN,OUT per million tokens)" if self.cost is None else f"at most {self.cost:.2f}")
        return "; ".join(parts)


def duration(seconds: float) -> str:
    """12 s, 4 min, 2.5 h: as precise as an estimate is."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def tokens(text: str) -> int:
    """An upper guess of the tokens of a text."""
    wide = sum(ord(c) >= 0x2E80 for c in text)
    return wide + math.ceil((len(text) - wide) / 3)


def estimate(
    items: Sequence[Item],
    answerer: Answerer,
    journal: Journal,
    *,
    max_new_tokens: int,
    concurrency: int = 1,
    price: tuple[float, float] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Estimate:
    """Ask the first few missing items (one batch of a local model), keep their answers, and reckon the rest from them.

    ``price``: money per million tokens read and written. The seconds of an endpoint are divided by ``concurrency``: requests overlap.
    """
    left = missing(items, answerer, journal)
    seconds, asked = 0.0, 0
    for chunk in _first(items, left, answerer):
        began = clock()
        journaled(chunk, answerer, journal)
        seconds, asked = (clock() - began) / len(chunk), asked + len(chunk)  # the last chunk's pace: the first one finds all asleep
    rest = seconds * max(0, len(left) - asked) / (1 if answerer.atomic else concurrency)
    read, written = sum(tokens(m["content"]) + 4 for i in left for m in i.messages), max_new_tokens * len(left)
    cost = None if price is None else (read * price[0] + written * price[1]) / 1e6
    return Estimate(len(items), len(left), read, written, rest if left else None, cost)


def _first(items: Sequence[Item], left: Sequence[Item], answerer: Answerer) -> list[Sequence[Item]]:
    """What is asked to find the pace: a whole batch of a local model, else a few prompts one after another."""
    if not answerer.atomic:
        return [[item] for item in left[:PROBED]]
    wanted = {item.id for item in left}
    batches = [items[start : start + answerer.batch] for start in range(0, len(items), answerer.batch)]
    return [batch for batch in batches if any(item.id in wanted for item in batch)][:1]
